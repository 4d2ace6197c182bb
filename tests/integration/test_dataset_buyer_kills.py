"""A buyer that is killed at random instants: no half file, no lost token, nothing fetched twice."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from dataset_shop import ID, TOKEN, Shop, made

from tensorage.dataset.buyer.book import Book, Token
from tensorage.dataset.chunks import CHUNK_SIZE, chunk_span, split_leaves
from tensorage.merkle import leaf_hash

CHUNKS = 24
WAIT = 60.0


def missing(part, leaves, size):
    """Bytes of chunks that are not there."""
    data = part.read_bytes() if part.exists() else b""
    left = 0
    for index, leaf in enumerate(leaves):
        start, end = chunk_span(index, size)
        if leaf_hash(data[start:end]) != leaf:
            left += end - start
    return left


class Buyer:
    """One run of `dataset buy`, in a process of its own."""

    def __init__(self, directory, shop):
        environment = {key: value for key, value in os.environ.items() if key != "TENSORAGE_DATASET_TOKEN"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dataset", "buy", shop.place, "--owner", shop.owner, "--home", "home"],
            cwd=directory,
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def kill_when(self, ready):
        until = time.monotonic() + WAIT
        while not ready() and self.process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=WAIT)

    def finish(self):
        out, _ = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out.decode()


def test_a_buyer_killed_at_random_instants_goes_on_with_at_most_one_chunk_twice(tmp_path):
    chance = random.Random(20)
    data = made((CHUNKS - 1) * CHUNK_SIZE + 99)
    out, part = tmp_path / f"{ID}-v1.jsonl", tmp_path / f"{ID}-v1.jsonl.part"
    with Shop(data) as shop:
        leaves = split_leaves(shop.leaves[1])
        pour = shop.pour

        async def slowly(writer, body):
            for at in range(0, len(body), CHUNK_SIZE // 4):
                await pour(writer, body[at : at + CHUNK_SIZE // 4])
                await asyncio.sleep(0.002)

        shop.pour = slowly
        with Book(tmp_path / "home") as book:
            book.keep_token(shop.url, ID, Token(TOKEN, 1, "paid", 1))
        left = len(data)
        for number in range(5):
            shop.sent, asked = 0, len(shop.asked)
            stop = chance.randrange(left) if number else 0
            run = Buyer(tmp_path, shop)
            run.kill_when(lambda stop=stop, asked=asked: len(shop.asked) > asked and shop.sent >= stop)
            assert not out.exists() or out.read_bytes() == data
            now = missing(part, leaves, len(data))
            assert now <= left
            left = now
        shop.sent = 0
        code, said = Buyer(tmp_path, shop).finish()
        assert code == 0, said
        assert out.read_bytes() == data
        assert left <= shop.sent <= left + CHUNK_SIZE
        assert not part.exists()
        with Book(tmp_path / "home") as book:
            assert [token.token for token in book.tokens(shop.url, ID)] == [TOKEN]
            assert len(book.receipts(id=ID)) == 1


def test_an_interrupted_buyer_says_so_and_keeps_what_came(tmp_path):
    data = made(4 * CHUNK_SIZE)
    with Shop(data) as shop:
        honest = shop.honest

        async def half(asked, writer):
            if asked.path.endswith("/download"):
                await shop.answer(
                    writer,
                    206,
                    data[: 2 * CHUNK_SIZE],
                    [f"Content-Range: bytes 0-{len(data) - 1}/{len(data)}"],
                    length=len(data),
                )
                await asyncio.sleep(WAIT)
            else:
                await honest(asked, writer)

        shop.honest = half
        with Book(tmp_path / "home") as book:
            book.keep_token(shop.url, ID, Token(TOKEN, 1, "join", 1))
        run = Buyer(tmp_path, shop)
        part, leaves = tmp_path / f"{ID}-v1.jsonl.part", split_leaves(shop.leaves[1])
        until = time.monotonic() + WAIT
        while missing(part, leaves, len(data)) > 2 * CHUNK_SIZE:
            assert time.monotonic() < until
            time.sleep(0.02)
        run.process.send_signal(signal.SIGINT)
        code, said = run.finish()
        assert code == 130 and "Traceback" not in said and "never retrieved" not in said, said
        assert missing(part, leaves, len(data)) == 2 * CHUNK_SIZE
