"""A process that stores, commits, settles and gives back without end, and says what it has promised.

    python shard_process.py ROOT FIRST-NUMBER

Lines on stdout, each written at once: `phase NAME` before each kind of work, `stored NUMBER` and
`restored NUMBER` after a receipt or a promise was given, `removing NUMBER` before one is taken back.
"""

import itertools
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from allocator_data import ME
from shard_data import put, sign, ticket

from tensorage.allocator.shards import ShardStore
from tensorage.allocator.upkeep import DataDirectory
from tensorage.errors import RequestError
from tensorage.shard import SHARD_LEAVES

NOW = 1_000_000


def leaves_of(number: int) -> int:
    """The size of the shard with that number."""
    return SHARD_LEAVES[number % len(SHARD_LEAVES)]


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(root: Path, first: int) -> None:
    draw = random.Random(first)
    with (
        DataDirectory([root], ME) as data,
        ShardStore(data.store, reserve=0, trash_seconds=10) as shards,
        ThreadPoolExecutor(4) as pool,
        data.filling(),
    ):
        data.recover()
        numbers = itertools.count(first)
        mine: list[int] = []

        def upload(number: int) -> None:
            try:
                put(shards, ticket(number, leaves_of(number)), now=NOW)
            except RequestError as error:
                assert error.kind == "full", error
                return
            say("stored", number)
            mine.append(number)

        def commit() -> None:
            say("phase", "commit")
            data.store.commit(sign, 1)
            say("phase", "settle")
            data.settle()

        while True:
            say("phase", "upload")
            list(pool.map(upload, list(itertools.islice(numbers, 4))))
            commit()
            commit()
            say("phase", "remove")
            for number in draw.sample(mine, k=min(len(mine), 3)):
                mine.remove(number)
                say("removing", number)
                name = ticket(number, leaves_of(number)).ticket.hash
                shards.remove(name, NOW)
                if draw.random() < 0.3:
                    shards.restore(name, NOW)
                    say("restored", number)
                    mine.append(number)
            shards.expire(NOW + 10)
            say("phase", "give back")
            data.give_back(1)
            commit()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
