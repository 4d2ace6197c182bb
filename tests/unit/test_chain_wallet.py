"""Hotkeys from wallet files, and what an operator is told when they are not as they should be."""

import io
import stat

import pytest
from bittensor import CRYPTO_ED25519, Wallet

from tensorage.chain.auth import public_key, verify
from tensorage.chain.connection import Connection
from tensorage.chain.network import ChainSettings
from tensorage.chain.wallet import Hotkey, create_wallet, load_hotkey, load_public
from tensorage.chain.writer import Writer, narrow_policy
from tensorage.errors import UsageError


@pytest.fixture
def root(tmp_path):
    return tmp_path / "wal lets"


def message(call, *arguments) -> str:
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert error.value.exit_code == 2
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_wallet_is_made_once_and_its_hotkey_signs(root, capsys):
    first = create_wallet("cold", "hot", str(root))
    again = create_wallet("cold", "hot", str(root))
    assert first.ss58 == again.ss58 == load_hotkey("cold", "hot", str(root)).ss58
    assert load_public("cold", "hot", str(root)) == first.public
    assert first.public_key == public_key(first.ss58)
    assert first.coldkey_ss58 == Wallet("cold", "hot", str(root)).coldkeypub.ss58_address
    assert verify(first.public_key, b"message", first.sign(b"message"))
    assert stat.S_IMODE((root / "cold" / "hotkeys" / "hot").stat().st_mode) == 0o600
    assert capsys.readouterr() == ("", "")


def test_a_second_hotkey_leaves_the_coldkey_alone_and_mnemonics_go_only_to_who_asks(root):
    told = []
    first = create_wallet(
        "cold", "one", str(root), on_mnemonic=lambda kind, words: told.append((kind, words))
    )
    second = create_wallet(
        "cold", "two", str(root), on_mnemonic=lambda kind, words: told.append((kind, words))
    )
    assert [kind for kind, _ in told] == ["coldkey", "hotkey", "hotkey"]
    assert all(len(words.split()) == 12 for _, words in told)
    assert first.coldkey_ss58 == second.coldkey_ss58
    assert first.ss58 != second.ss58


def test_the_public_half_needs_no_secret_file(root):
    made = create_wallet("cold", "hot", str(root))
    (root / "cold" / "hotkeys" / "hot").unlink()
    assert load_public("cold", "hot", str(root)).ss58 == made.ss58


def test_a_missing_wallet_and_a_missing_hotkey_name_the_command_that_makes_them(root):
    flags = f"-w cold -H hot --wallet-path '{root}'"
    assert message(load_hotkey, "cold", "hot", str(root)).endswith(f"btcli wallet create {flags}")
    assert message(load_public, "cold", "hot", str(root)).endswith(f"btcli wallet create {flags}")
    create_wallet("cold", "other", str(root))
    assert message(load_hotkey, "cold", "hot", str(root)).endswith(f"btcli wallet new-hotkey {flags}")


def test_the_default_directory_is_not_spelled_out_in_a_remedy(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    assert message(load_hotkey, "cold", "hot").endswith("btcli wallet create -w cold -H hot")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"secretPhrase": "one two"}', b"not a key"])
def test_a_damaged_file_is_named_with_the_way_to_restore_it(root, content):
    create_wallet("cold", "hot", str(root))
    file = root / "cold" / "hotkeys" / "hot"
    file.write_bytes(content)
    text = message(load_hotkey, "cold", "hot", str(root))
    assert str(file) in text
    assert "btcli wallet regen-hotkey -w cold -H hot" in text


def test_a_file_with_the_public_half_only_is_damaged(root):
    create_wallet("cold", "hot", str(root))
    keys = root / "cold" / "hotkeys"
    (keys / "hot").write_bytes((keys / "hotpub.txt").read_bytes())
    assert "it holds no secret key" in message(load_hotkey, "cold", "hot", str(root))


def test_an_encrypted_hotkey_is_not_waited_for_when_nobody_is_there(root, monkeypatch):
    Wallet("cold", "hot", str(root)).create_new_coldkey(use_password=False, suppress=True).create_new_hotkey(
        hotkey_password="correct horse", suppress=True
    )
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "is encrypted" in message(load_hotkey, "cold", "hot", str(root))
    assert load_public("cold", "hot", str(root)).ss58


def test_an_ed25519_hotkey_is_refused(root):
    Wallet("cold", "hot", str(root)).create_new_hotkey(crypto_type=CRYPTO_ED25519, suppress=True)
    assert "not of type sr25519" in message(load_hotkey, "cold", "hot", str(root))


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a"])
def test_names_are_names_and_not_paths(root, name):
    assert "is no name" in message(load_hotkey, name, "hot", str(root))
    assert "is no name" in message(load_hotkey, "cold", name, str(root))


def test_a_directory_in_place_of_a_key_and_an_unwritable_path_are_usage_errors(root):
    (root / "cold" / "hotkeys" / "hot").mkdir(parents=True)
    assert "cannot be read" in message(load_hotkey, "cold", "hot", str(root))
    blocked = root / "file"
    blocked.write_text("")
    assert "cannot be written" in message(create_wallet, "cold", "hot", str(blocked))


def test_development_keys_come_from_their_uri_and_secrets_stay_out_of_the_repr():
    alice = Hotkey.from_uri("//Alice")
    assert alice.ss58 == "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    assert repr(alice) == f"Hotkey({alice.ss58})"
    with pytest.raises(UsageError):
        Hotkey.from_uri("Alice")


@pytest.mark.parametrize(
    ("network", "endpoint", "command"),
    [
        ("finney", None, "btcli subnets register -n finney --netuid 7 -w cold -H hot"),
        (
            "finney",
            "ws://10.0.0.1:9944",
            "btcli subnets register -n ws://10.0.0.1:9944 --netuid 7 -w cold -H hot",
        ),
        ("devnet", None, "tensorage devnet register --netuid 7 --wallet.name cold --wallet.hotkey hot"),
        (
            "finney",
            "sqlite:///tmp/my net.sqlite",
            "tensorage devnet register --path '/tmp/my net.sqlite' --netuid 7"
            " --wallet.name cold --wallet.hotkey hot",
        ),
    ],
)
def test_an_unregistered_hotkey_is_told_the_command_with_everything_filled_in(
    root, monkeypatch, network, endpoint, command
):
    monkeypatch.setenv("HOME", str(root))
    create_wallet("cold", "hot")
    settings = ChainSettings(network, endpoint, 7)
    connection = Connection(settings, policy=narrow_policy(7), clock=lambda: 0.0)
    assert Writer(connection, load_hotkey("cold", "hot")).not_registered().remedy.endswith(command)
