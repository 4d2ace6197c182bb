"""buy, join, verify and receipt show, against a seller that is honest, and one that is not."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import pytest
from dataset_market import DORA, record
from dataset_seller import Seller
from dataset_shop import ID, TOKEN, Shop, digest_of, made

from tensorage.config import run
from tensorage.dataset import wire
from tensorage.dataset.buyer.api import Seller as Api
from tensorage.dataset.buyer.book import Book
from tensorage.dataset.buyer.buyer_commands import app
from tensorage.dataset.buyer.entitling import TOKEN_VARIABLE
from tensorage.dataset.buyer.joining import join
from tensorage.dataset.buyer.target import Goal
from tensorage.dataset.buyer.trust import record_json
from tensorage.dataset.buyer.urls import place
from tensorage.dataset.chunks import CHUNK_SIZE
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.legacy import LegacyRecord
from tensorage.dataset.store import Store


@pytest.fixture
def shop():
    with Shop(made(2 * CHUNK_SIZE + 5, 1), made(3 * CHUNK_SIZE, 2)) as running:
        yield running


@pytest.fixture
def buyer(tmp_path, monkeypatch, capsys):
    """Runs a command as a buyer with a home and a token of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv("TENSORAGE_DATASET_HOME", str(tmp_path / "home"))

    def call(*arguments):
        code = run(app, [str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_version_is_bought_verified_and_noted_and_the_owner_is_trusted_from_then_on(shop, buyer, tmp_path):
    code, out, err = buyer("buy", shop.place, "--version", 1)
    assert code == 0, err
    assert "trusting" in err and f"--owner {shop.owner}" in err
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == shop.data[0]
    assert out.startswith(f"Verified v1: {len(shop.data[0])} bytes, file hash ")
    code, out, err = buyer("buy", shop.place, "--json")
    assert code == 0 and "WARNING" not in err
    receipt = json.loads(out)
    assert (receipt["seq"], receipt["owner"], receipt["rootOwner"]) == (2, shop.owner, shop.owner)
    assert receipt["manifest"]["files"][0]["name"] == "sft.jsonl" and receipt["payment"] is None
    assert (tmp_path / "chats-v2.jsonl").read_bytes() == shop.data[1]
    sent = shop.sent
    code, out, err = buyer("buy", shop.place)
    assert code == 0 and "already" in err and shop.sent == sent
    for path in [tmp_path / "home" / "buyer.sqlite", tmp_path / "chats-v2.jsonl.receipt.json"]:
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert TOKEN not in out + err


def test_receipts_are_shown_and_checked(shop, buyer, tmp_path):
    assert buyer("buy", shop.place)[0] == 0
    for what in [[], ["chats"], ["chats-v2.jsonl"], ["chats-v2.jsonl.receipt.json"]]:
        code, out, err = buyer("receipt", "show", *what, "--json")
        assert code == 0, err
        assert [found["seq"] for found in json.loads(out)] == [2]
    path = tmp_path / "chats-v2.jsonl.receipt.json"
    document = json.loads(path.read_text())
    for change in [
        {"fileHash": "0" * 64},
        {"owner": EthSigner(b"\2" * 32).owner},
        {"rootOwner": EthSigner(b"\2" * 32).owner},
        {"entryHash": "0" * 64},
        {"entry": document["entry"] | {"size": 5}, "size": 5},
        {"entry": []},
    ]:
        path.write_text(json.dumps(document | change))
        code, out, err = buyer("receipt", "show", path)
        assert code == 1, change
    path.write_text(json.dumps(document | {"path": "\u001b[2J\n", "payment": {"asset": 5}, "time": 1 << 60}))
    code, out, err = buyer("receipt", "show", path)
    assert code == 0 and "\x1b" not in out
    with (tmp_path / "chats-v2.jsonl").open("r+b") as file:
        file.write(b"x")
    assert buyer("receipt", "show", "chats-v2.jsonl")[0] == 1
    assert buyer("receipt", "show", "nothing")[0] == 2


def test_another_owner_is_refused_before_a_byte_of_the_file_is_asked_for(shop, buyer):
    other = EthSigner(b"\2" * 32).owner
    code, _, err = buyer("buy", shop.place, "--owner", other)
    assert code == 1 and f"want owner {other}" in err
    assert shop.paths == ["/dataset/chats/versions"]
    assert buyer("buy", shop.place, "--owner", "me")[0] == 2
    assert buyer("buy", shop.place, "--owner", shop.owner.upper().replace("0X", "0x"))[0] == 0


def test_a_seller_that_shows_another_owner_or_an_older_or_another_log_is_found_out(shop, buyer, tmp_path):
    assert buyer("verify", shop.place, "--owner", shop.owner)[1].startswith(
        f"Chain valid: 2 version(s), head v2, owner {shop.owner}"
    )
    shop.publish(1)
    code, out, _ = buyer("verify", shop.place)
    assert code == 1 and out.startswith("chain INVALID: ") and "ends at version 1, but 2 was seen" in out
    assert buyer("buy", shop.place)[0] == 1
    honest = shop.signed
    shop.signed = honest[:1]
    shop.add(made(100, 9))
    code, out, _ = buyer("verify", shop.place, "--json")
    assert code == 1 and json.loads(out)["reason"] == "other_hash"
    with Book(tmp_path / "home") as book:
        assert [(a["seq"], b["seq"], a != b) for a, b in book.evidence("chats")] == [(2, 2, True)]
    shop.signed = honest
    shop.publish(issued=int(time.time()) - 90_000)
    assert json.loads(buyer("verify", shop.place, "--json")[1])["reason"] == "expired"
    shop.document = wire.log_json(shop.log())
    assert json.loads(buyer("verify", shop.place, "--json")[1])["reason"] == "unsigned_head"
    with Shop(*shop.data, key=b"\3" * 32) as thief:
        shop.document = thief.document
        assert json.loads(buyer("verify", shop.place, "--json")[1])["reason"] == "wrong_owner"
        code, _, err = buyer("verify", thief.place)
        assert code == 0 and "trusting" in err and f"by another owner, {shop.owner}" in err
    shop.publish()
    assert buyer("verify", shop.place)[0] == 0
    assert not list(tmp_path.glob("chats-*"))


def test_a_log_in_a_file_is_verified_against_what_was_seen_elsewhere(shop, buyer, tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(shop.document))
    code, out, err = buyer("verify", path)
    assert code == 0 and "trusting" in err
    path.write_text(json.dumps(wire.log_json(shop.log(1))))
    assert buyer("verify", path, "--owner", shop.owner)[0] == 1
    document = wire.log_json(shop.log())
    document["versions"][0]["size"] += 1
    path.write_text(json.dumps(document))
    code, out, _ = buyer("verify", path, "--owner", shop.owner, "--json")
    assert code == 1 and json.loads(out)["valid"] is False
    path.write_text("{")
    assert buyer("verify", path)[0] == 1
    assert buyer("verify", tmp_path / "none.json")[0] == 2
    assert buyer("verify", path, "--anchor", "--network", "devnet")[0] == 2


def test_a_log_without_a_statement_is_said_to_lack_its_end_perhaps(shop, buyer, tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(wire.log_json(shop.log(1))))
    code, out, err = buyer("verify", path, "--owner", shop.owner)
    assert code == 0 and "1 version(s)" in out and "may have been cut off" in err
    path.write_text(json.dumps(shop.document))
    assert "may have been cut off" not in buyer("verify", path, "--owner", shop.owner)[2]


@pytest.mark.parametrize("name", ["x.part", "x.part.json", "x.receipt.json"])
def test_a_file_of_the_users_beside_the_target_is_left_alone_without_force(shop, buyer, tmp_path, name):
    mine = tmp_path / name
    mine.write_text('{"mine": true}')
    code, _, err = buyer("buy", shop.place, "--out", "x")
    assert code == 2 and f"{name} is there" in err and "--force" in err
    assert mine.read_text() == '{"mine": true}'
    assert [path.name for path in tmp_path.glob("x*")] == [name]
    assert not any("chunks" in path for path in shop.paths)
    assert buyer("buy", shop.place, "--out", "x", "--force")[0] == 0
    assert (tmp_path / "x").read_bytes() == shop.data[1]
    if name == "x.part.json":
        mine.write_text("mine")
        assert buyer("buy", shop.place, "--out", "x")[0] == 0 and mine.read_text() == "mine"


def test_what_a_buyer_killed_between_two_names_of_its_file_left_is_tidied_up(shop, buyer, tmp_path):
    assert buyer("buy", shop.place, "--out", "x")[0] == 0
    goal = Goal(shop.owner, ID, 2, shop.signed[1].entry.file_hash, len(shop.data[1]), b"")
    (tmp_path / "x.part").hardlink_to(tmp_path / "x")
    (tmp_path / "x.part.json").write_text(json.dumps(goal.sidecar()))
    assert buyer("buy", shop.place, "--out", "x")[0] == 0
    assert sorted(path.name for path in tmp_path.glob("x*")) == ["x", "x.receipt.json"]


def test_a_wrong_chunk_list_or_manifest_ends_it_before_a_byte_is_fetched(shop, buyer):
    right = shop.leaves[2]
    for wrong in [right[:-32], right + bytes(32), bytes(len(right)), right[:-1], b"", bytes(200_000)]:
        shop.leaves[2] = wrong
        assert buyer("buy", shop.place)[0] == 1
    shop.leaves[2] = right
    shop.manifests[2] = shop.manifests[1]
    code, _, err = buyer("buy", shop.place)
    assert code == 1 and "manifest has the hash" in err
    assert not any(path.endswith("/download") for path in shop.paths)


def test_mirrors_help_and_get_no_token_and_a_lying_one_is_named(shop, buyer, tmp_path):
    with Seller({"/m/chats-v2.jsonl": shop.data[1], "/bad/2": made(3 * CHUNK_SIZE, 7)}) as other:
        shop.mirrors = [f"{other.url}/m/", "ftp://x", 5, shop.place + "/download?x"]

        async def slow(asked, writer):
            await asyncio.sleep(1)
            await shop.honest(asked, writer)

        shop.tricks["/dataset/chats/download"] = slow
        code, out, err = buyer("buy", shop.place, "--mirror", other.url + "/bad/{version}", "--json")
        assert code == 0, err
        assert (tmp_path / "chats-v2.jsonl").read_bytes() == shop.data[1]
        faults = {report["name"]: report["fault"] for report in json.loads(out)["sources"]}
        assert "wrong chunk" in faults[f"{other.url}/bad/2"] and f"{other.url}/bad/2 sent" in err
        assert not any("authorization" in asked.headers for asked in other.asked)


def test_a_token_goes_only_where_it_is_from(shop, buyer, monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE)
    code, _, err = buyer("buy", shop.place)
    assert code == 2 and "no token" in err
    with Book(tmp_path / "home") as book:
        from tensorage.dataset.buyer.book import Token

        book.keep_token(shop.url, "chats", Token(TOKEN, None, "join", 1))
    assert buyer("buy", shop.place)[0] == 0
    (tmp_path / "chats-v2.jsonl").unlink()
    with Shop(*shop.data) as moved:
        code, _, err = buyer("buy", moved.place)
        assert code == 2 and "--moved-from" in err
        assert not any("authorization" in asked.headers for asked in moved.asked)
        assert buyer("buy", moved.place, "--moved-from", shop.url)[0] == 0
    code, _, err = buyer("buy", "http://192.0.2.1/dataset/chats")
    assert code == 2 and "plain HTTP" in err
    code, _, err = buyer("join", "http://data.example/dataset/chats")
    assert code == 2 and "plain HTTP" in err


def test_tokens_come_from_a_file_or_with_a_warning_from_the_command_line(shop, buyer, monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE)
    code, _, err = buyer("buy", shop.place, "--member-token", TOKEN, "--out", "a")
    assert code == 0 and "can be seen by every user" in err
    (tmp_path / "token").write_text(TOKEN + "\n")
    code, _, err = buyer("buy", shop.place, "--member-token-file", "token", "--out", "b")
    assert code == 0 and "every user" not in err
    (tmp_path / "token").write_text("two words\n")
    code, _, err = buyer("buy", shop.place, "--member-token-file", "token", "--out", "c")
    assert code == 2 and "two words" not in err
    assert buyer("buy", shop.place, "--member-token", TOKEN, "--join")[0] == 2
    assert buyer("buy", shop.place, "--version", 3, "--member-token", TOKEN)[0] == 2


def test_a_seller_that_redirects_compresses_floods_or_says_nonsense_is_one_line_of_error(shop, buyer):
    async def redirect(asked, writer):
        await shop.say(writer, 302, {}, ["Location: http://127.0.0.1:1/"])

    async def gzip(asked, writer):
        await shop.say(writer, 200, {}, ["Content-Encoding: gzip"])

    async def flood(asked, writer):
        writer.write(b"HTTP/1.1 200 X\r\n\r\n")
        while True:
            await shop.pour(writer, bytes(1 << 20))

    async def escape(asked, writer):
        await shop.say(writer, 403, {"error": "x\u001b[2J", "message": "bad\u001b[31m\nnews"})

    async def word(asked, writer):
        await shop.say(writer, 403, {"error": "x\u001b[2J"})

    async def nonsense(asked, writer):
        writer.write(b"nonsense")

    for trick in [redirect, gzip, flood, escape, word, nonsense]:
        shop.tricks["/dataset/chats/versions"] = trick
        code, out, err = buyer("verify", shop.place, "--owner", shop.owner)
        assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, trick
        assert "\x1b" not in out + err
    assert len(shop.asked) == 6


# Format 1


def legacy(*versions, key=b"\4" * 32):
    signer, records, previous = EthSigner(key), [], ""
    for seq, data in enumerate(versions, 1):
        record = LegacyRecord(
            seq, "ab" * 32, digest_of(data).sha256.hex(), len(data), previous, "2026-01-01T00:00:00Z", ""
        )
        previous = signer.sign(record.digest).hex()
        records.append(record_json(LegacyRecord(**{**record.__dict__, "signature": previous})))
    return signer.owner, {"id": ID, "versions": records}


def old(shop, *versions):
    """Turn a shop into one of format 1: the log for members only, no chunks, no manifest."""
    owner, document = legacy(*versions)

    async def log(asked, writer):
        if asked.headers.get("authorization") == f"Bearer {TOKEN}":
            await shop.say(writer, 200, document)
        else:
            await shop.say(writer, 401, {"error": "auth_required", "message": "show a token"})

    shop.tricks[f"/dataset/{ID}/versions"] = log
    for seq, data in enumerate(versions, 1):
        shop.files[f"/data/{seq}"] = data
    return owner


def test_format_1_is_fetched_whole_and_what_is_not_proven_is_said(shop, buyer, tmp_path):
    data = made(2 * CHUNK_SIZE + 77, 5)
    owner = old(shop, data)
    code, out, err = buyer("buy", shop.place, "--owner", owner)
    assert code == 0 and "format 1" in err and "not proven" in err
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == data
    assert not any("chunks" in path for path in shop.paths)
    assert buyer("receipt", "show", "chats-v1.jsonl")[0] == 0
    old(shop, data, made(10, 6))
    assert buyer("verify", shop.place)[0] == 0
    old(shop, data)
    code, out, _ = buyer("verify", shop.place)
    assert code == 1 and "2 was seen before" in out


@pytest.mark.parametrize("headers", [['ETag: "one"'], ["Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"], []])
def test_format_1_goes_on_only_where_the_file_is_said_to_be_the_same(shop, buyer, tmp_path, headers):
    data = made(3 * CHUNK_SIZE, 5)
    owner = old(shop, data)
    part = tmp_path / "chats-v1.jsonl.part"

    async def half(asked, writer):
        await shop.answer(writer, 200, data[:CHUNK_SIZE], headers, length=len(data))
        await writer.drain()
        shop.tricks["/dataset/chats/download"] = refuse

    async def refuse(asked, writer):
        await shop.answer(writer, 403, b"")

    async def ranged(asked, writer):
        if asked.headers.get("if-range") in [value.partition(": ")[2] for value in headers]:
            await shop.honest(asked, writer)
        else:
            await shop.answer(writer, 200, data)

    shop.tricks["/dataset/chats/download"] = half
    assert buyer("buy", shop.place, "--owner", owner)[0] == 1
    assert 0 < part.stat().st_size <= CHUNK_SIZE
    there = part.stat().st_size
    shop.tricks["/dataset/chats/download"] = ranged
    shop.sent = 0
    code, out, err = buyer("buy", shop.place, "--owner", owner, "--json")
    assert code == 0, err
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == data
    assert shop.sent == len(data) - (there if headers else 0)
    assert json.loads(out)["resumed"] == (there if headers else 0)


def test_format_1_that_changes_midway_or_is_altered_leaves_nothing_and_the_next_run_succeeds(
    shop, buyer, tmp_path
):
    data = made(2 * CHUNK_SIZE, 5)
    owner = old(shop, data)
    part = tmp_path / "chats-v1.jsonl.part"
    shop.files["/data/1"] = data[:-1] + b"x"
    code, _, err = buyer("buy", shop.place, "--owner", owner)
    assert code == 1 and "hash is not the signed" in err
    assert not (tmp_path / "chats-v1.jsonl").exists() and part.stat().st_size == 0
    part.write_bytes(data[:-5] + b"wrong")
    shop.files["/data/1"] = data
    assert buyer("buy", shop.place, "--owner", owner)[0] == 0
    assert (tmp_path / "chats-v1.jsonl").read_bytes() == data


# Device codes


class Desk:
    """The seller's side of a device code, by a script of answers."""

    def __init__(self, shop, *answers, code="ABCD-EFGH", interval=5):
        self.answers = iter(answers)
        self.code = {"device_code": "d" * 64, "user_code": code, "expires_in": 900, "interval": interval}
        self.shop = shop
        shop.tricks["/auth/device/code"] = self.give
        shop.tricks["/auth/device/token"] = self.poll

    async def give(self, asked, writer):
        await self.shop.say(writer, 200, self.code)

    async def poll(self, asked, writer):
        assert json.loads(asked.body) == {"device_code": "d" * 64}
        status, document, *headers = next(self.answers)
        await self.shop.say(writer, status, document, headers)


PENDING = (200, {"status": "authorization_pending"})
GRANTED = (200, {"status": "authorized", "token": TOKEN, "group_id": ID})


def joined(shop, home):
    """Join; returns what was shown and how long was waited each time."""
    shown, waited, now = [], [], [1000]

    async def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    async def work():
        async with Api(place(shop.place, None)) as api:
            await join(
                api,
                book,
                worker="w",
                show=lambda code, life: shown.append(code),
                clock=lambda: int(now[0]),
                sleep=sleep,
            )

    with Book(home) as book:
        asyncio.run(work())
        assert [token.token for token in book.tokens(shop.url, ID)] == [TOKEN]
    return shown, waited


def test_a_worker_polls_as_it_is_told_and_keeps_its_token(shop, tmp_path):
    Desk(
        shop,
        PENDING,
        (429, {"error": "slow_down"}, "Retry-After: 25"),
        (400, {"error": "slow_down"}),
        PENDING,
        GRANTED,
    )
    shown, waited = joined(shop, tmp_path / "home")
    assert shown == ["ABCD-EFGH"] and waited == [5, 5, 25, 30, 30]


@pytest.mark.parametrize(
    ("answers", "options"),
    [
        ([(404, {"error": "invalid_grant"})], {}),
        ([(410, {"error": "expired_token"})], {}),
        ([PENDING] * 200, {}),
        ([(200, {"status": "authorized", "token": "with space"})], {}),
        ([(200, {"status": "sure"})], {}),
        ([(500, {"error": "server_error"})], {}),
        ([], {"code": "\x1b[2JABCD"}),
        ([], {"code": ""}),
    ],
)
def test_a_worker_that_is_not_let_in_or_told_nonsense_ends(shop, tmp_path, answers, options):
    from tensorage.errors import TensorageError

    Desk(shop, *answers, **options)
    with pytest.raises(TensorageError):
        joined(shop, tmp_path / "home")


def test_join_shows_the_code_and_buy_then_needs_no_token(shop, buyer, monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE)
    Desk(shop, GRANTED, interval=1)
    code, out, err = buyer("join", shop.place, "--json")
    assert code == 0 and "ABCD-EFGH" in err
    assert [json.loads(line).get("user_code") for line in out.splitlines()] == ["ABCD-EFGH", None]
    assert TOKEN not in out + err
    assert buyer("buy", shop.place)[0] == 0
    assert Path("chats-v2.jsonl").read_bytes() == shop.data[1]


def test_two_histories_shown_to_two_runs_at_once_cannot_both_be_remembered(tmp_path):
    with Shop(made(10, 1)) as shop, Book(tmp_path / "home") as first, Book(tmp_path / "home") as second:
        from tensorage.dataset.buyer.trust import judge
        from tensorage.dataset.errors import HeadError

        one = json.dumps(shop.document).encode()
        shop.signed.clear()
        shop.add(made(10, 2))
        two = json.dumps(shop.document).encode()
        told = []
        judge(first, one, now=int(time.time()), tell=told.append, id=ID, owner=shop.owner)
        with pytest.raises(HeadError) as error:
            judge(second, two, now=int(time.time()), tell=told.append, id=ID, owner=shop.owner)
        assert error.value.reason == "other_hash" and not told
        assert (tmp_path / "home" / "buyer.sqlite").stat().st_mode & 0o077 == 0


def test_a_dataset_of_ones_own_is_verified_by_its_id(buyer, tmp_path):
    with Store(tmp_path / "home") as store:
        record(store, tmp_path / "bundles", b'{"a": 1}\n', id=ID, signer=DORA)
    code, out, _ = buyer("verify", ID)
    assert (code, out) == (0, f"Chain valid: 1 version(s), head v1, owner {DORA.owner}\n")
    code, out, _ = buyer("verify", ID, "--owner", EthSigner(b"\2" * 32).owner)
    assert code == 1 and out.startswith("chain INVALID: ")
    assert buyer("verify", "unknown")[0] == 2
    with sqlite3.connect(tmp_path / "home" / "datasets.sqlite") as db:
        db.execute("UPDATE entries SET time = time + 1")
    code, out, _ = buyer("verify", ID, "--json")
    assert code == 1 and json.loads(out)["reason"] == "bad_signature"
