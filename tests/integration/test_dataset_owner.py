"""The owner's commands: what they record, print, refuse and never show."""

import asyncio
import json
import os
import stat
from types import SimpleNamespace

import pytest
from bittensor import Client
from bittensor.intents import BurnedRegister
from chain_net import NETUID, Net
from dataset_owner import ALICE, bundle, check_whole, dataset, key_file, open_store, record

from tensorage.chain.devnet import open_substrate
from tensorage.chain.wallet import Hotkey, create_wallet
from tensorage.dataset import wire
from tensorage.dataset.anchor import check_anchor, payload
from tensorage.dataset.identity import verify
from tensorage.dataset.verifying import verify as verify_any


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORAGE_DATASET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def wallet(tmp_path, hotkey="default"):
    create_wallet("owner", hotkey, tmp_path / "wallets")
    return ("--wallet.name", "owner", "--wallet.hotkey", hotkey, "--wallet.path", tmp_path / "wallets")


def test_a_dataset_from_its_first_version_to_its_next_key(tmp_path, home, capsys):
    flags = wallet(tmp_path)
    assert dataset("from", bundle(tmp_path / "one"), "--name", "chats", *flags) == 0
    first = capsys.readouterr()
    assert first.out.startswith('Dataset "chats" version 1 recorded\n  Manifest: ')
    assert "Next: dataset publish chats" in first.err
    assert dataset("from", tmp_path / "one", "--name", "chats", *flags, "--json") == 0
    second = printed(capsys)
    assert (second["version"], second["id"], second["size"]) == (2, "chats", 18)

    assert dataset("head", "chats", "--json") == 0  # no key: the statement is fresh
    head = wire.read_head(capsys.readouterr().out)
    assert (head.head.seq, head.head.entry_hash.hex()) == (2, second["entry"])
    assert verify(head.head.owner, head.head.hash, head.signature)

    new = wallet(tmp_path, "second")
    assert dataset("keys", "rotate", "chats", *flags, "--new-wallet.hotkey", "second") == 0
    assert dataset("version", "chats", "--bundle", tmp_path / "one", *flags) == 2
    assert "this key is" in capsys.readouterr().err
    assert dataset("version", "chats", "--bundle", tmp_path / "one", *new) == 0
    assert dataset("keys", "rotate", "--all", *flags, "--new-wallet.hotkey", "second", "--json") == 0
    capsys.readouterr()

    assert dataset("status", "chats", "--check", "--json") == 0
    document = printed(capsys)
    assert [line["artifact"] for line in document["versions"]] == ["good"] * 3
    with open_store(home) as store:
        verified = verify_any(store.log("chats"), owner=head.head.owner, id="chats")
        assert verified.owner == document["owner"] != document["rootOwner"] == head.head.owner
        assert check_whole(store) == 3


def test_secrets_are_files_for_the_owner_alone_and_never_printed(tmp_path, home, capsys):
    old_mask = os.umask(0)
    try:
        assert dataset("from", bundle(tmp_path / "one"), "--name", "chats", "--signer", "secp256k1") == 0
        assert dataset("members", "chats", "--add", "alice\x1b[31m", "--expires", "30d") == 0
        assert dataset("keys", "rotate", "chats", "--signer", "secp256k1", "--new-key", home / "new.key") == 0
        with open_store(home) as store:
            store.begin_payment(b"p", "chats", 1, network="n", asset="a", amount=1, pay_to="x")
            paid = store.mint_paid(b"p", "chats", 1, None, "n", 1, None)
    finally:
        os.umask(old_mask)
    out, err = capsys.readouterr()
    token = next(line for line in out.splitlines() if line.startswith("tensorage-member-"))
    secrets = [(home / name).read_text().strip() for name in ("owner.key", "new.key")]
    assert not any(secret in out + err for secret in secrets)
    for path in [home, *home.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        if path.is_file():
            content = path.read_bytes()
            assert token.encode() not in content and paid.encode() not in content
    assert dataset("members", "chats", "--json") == 0
    listed, bought = printed(capsys)
    assert (listed["label"], listed["maxVersion"], listed["state"], bought["paid"]) == (
        "alice [31m",
        1,
        "good",
        "1",
    )
    assert dataset("members", "chats", "--revoke", listed["hash"][:8]) == 0
    with open_store(home) as store:
        assert [member.revoked is None for member in store.members("chats")] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("from", "BUNDLE", "--name", "../x", "--key", "KEY"), "is no dataset id"),
        (("from", "BUNDLE", "--name", "buyer", "--key", "KEY"), "is no dataset id"),
        (("from", "nowhere", "--name", "chats", "--key", "KEY"), "is no directory"),
        (("version", "other", "--bundle", "BUNDLE", "--key", "KEY"), "create it with 'dataset from'"),
        (("version", "chats", "--bundle", "BUNDLE", "--key", "OTHER"), "is signed by"),
        (("version", "chats", "--bundle", "BUNDLE", "--key", "OPEN"), "can be read by others"),
        (("version", "chats", "--bundle", "BUNDLE", "--key", "EMPTY"), "holds no secp256k1 key"),
        (("version", "chats", "--bundle", "BUNDLE", "--signer", "hotkey", "--key", "KEY"), "secp256k1 key"),
        (("version", "chats"), "one of --bundle and --finish"),
        (("version", "chats", "--finish", "--key", "KEY"), "was cut off"),
        (("version", "chats", "--bundle", "OTHERS", "--repair"), "has the file hash"),
        (("status", "../home"), "is no dataset id"),
        (("members", "chats", "--revoke", "nobody"), "has no member"),
        (("members", "chats", "--add", "x", "--expires", "soon"), "no duration"),
        (("keys", "rotate", "--key", "KEY", "--new-key", "OTHER"), "one of ID and --all"),
        (("keys", "rotate", "chats", "--key", "KEY", "--new-key", "KEY"), "the old key and the new one"),
        (("anchor", "chats", "--subtensor.network", "devnet"), "which is no hotkey"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_exit_code_2(
    tmp_path, home, capsys, arguments, complaint
):
    places = {"BUNDLE": bundle(tmp_path / "one"), "OTHERS": bundle(tmp_path / "two", b"{}\n")}
    places |= {"KEY": key_file(tmp_path / "key"), "OTHER": key_file(tmp_path / "other", b"\2" * 32)}
    places |= {"OPEN": key_file(tmp_path / "open"), "EMPTY": key_file(tmp_path / "empty", b"")}
    places["OPEN"].chmod(0o644)
    assert dataset("from", places["BUNDLE"], "--name", "chats", "--key", places["KEY"]) == 0
    capsys.readouterr()
    assert dataset(*(places.get(word, word) for word in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and complaint in err and err.count("\n") == 1 and "01" * 32 not in err
    with open_store(home) as store:
        assert check_whole(store) == 1 and len(store.datasets()) == 1


def test_a_version_that_was_cut_off_shows_and_is_finished(tmp_path, home, capsys):
    def dies(digest):
        raise KeyboardInterrupt

    key = key_file(tmp_path / "key")
    with open_store(home) as store, pytest.raises(KeyboardInterrupt):
        record(store, bundle(tmp_path / "one"), SimpleNamespace(owner=ALICE.owner, sign=dies))
    assert dataset("from", bundle(tmp_path / "two", b"{}\n"), "--name", "chats", "--key", key) == 2
    assert "dataset version chats --finish" in capsys.readouterr().err
    assert dataset("status", "chats", "--json") == 0
    assert printed(capsys)["unfinished"] == 1
    assert dataset("version", "chats", "--finish", "--key", key) == 0
    assert dataset("from", tmp_path / "two", "--name", "chats", "--key", key) == 0
    with open_store(home) as store:
        assert check_whole(store) == 2


def test_an_artifact_that_was_edited_is_found_and_put_back(tmp_path, home, capsys):
    key = key_file(tmp_path / "key")
    assert dataset("from", bundle(tmp_path / "one"), "--name", "chats", "--key", key) == 0
    with open_store(home) as store:
        path = store.artifact("chats", 1).path
    path.chmod(0o600)
    path.write_bytes(b'{"text": "HELLO"}\n')
    capsys.readouterr()
    assert dataset("status", "chats", "--check") == 1
    out, err = capsys.readouterr()
    assert "artifact damaged" in out and "--repair" in err
    assert dataset("version", "chats", "--bundle", tmp_path / "one", "--repair") == 0
    assert dataset("status", "chats", "--check") == 0
    with open_store(home) as store:
        assert check_whole(store) == 1


async def test_heads_are_anchored_on_chain_and_a_newer_version_shows(tmp_path, home, capsys):
    net = Net(tmp_path / "devnet.sqlite")
    flags = wallet(tmp_path)
    chain = ("--subtensor.chain_endpoint", net.endpoint, "--netuid", NETUID)
    owner = create_wallet("owner", "default", tmp_path / "wallets")
    bundle(tmp_path / "one")
    for id in ("chats", "mails"):
        assert dataset("from", tmp_path / "one", "--name", id, *flags) == 0
    async with net.producing():
        alice = Hotkey.from_uri("//Alice").keypair
        async with Client("local", substrate=open_substrate(net.endpoint)) as client:
            keys = SimpleNamespace(coldkey=alice, coldkeypub=alice, hotkey=owner.keypair)
            (await client.execute(BurnedRegister(netuid=NETUID), keys)).raise_for_failure()
        capsys.readouterr()
        assert await asyncio.to_thread(dataset, "anchor", "chats", "--check", *chain) == 1
        assert "nothing is anchored" in capsys.readouterr().out
        assert await asyncio.to_thread(dataset, "anchor", "chats", *flags, *chain) == 0
        assert "chats v1: anchored up to v1" in capsys.readouterr().out
        assert await asyncio.to_thread(dataset, "anchor", "mails", "--check", *chain, "--json") == 0
        checked = printed(capsys)
        assert checked["newest"] and checked["owner"] == owner.ss58
        async with net.chain() as reader:
            root = bytes.fromhex(checked["root"])
            assert (await reader.commitments())[owner.ss58] == payload(root).encode()
        with open_store(home) as store:
            assert check_anchor(store.log("chats"), store.anchored("chats"), root) == 1
        assert dataset("version", "chats", "--bundle", tmp_path / "one", *flags) == 0
        assert await asyncio.to_thread(dataset, "anchor", "chats", "--check", *chain) == 1
        out, err = capsys.readouterr()
        assert "chats v2: anchored up to v1" in out and "does not have the newest" in err
        with open_store(home) as store:  # what is anchored is still proven
            assert check_anchor(store.log("chats"), store.anchored("chats"), root) == 1
