"""Opening a coldkey: only with its password, and with one line about whatever is wrong."""

import io

import pytest
from bittensor import CRYPTO_ED25519, Wallet

from tensorage.chain.coldkey import Coldkey, load_coldkey
from tensorage.errors import UsageError

SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for name in ("BT_WALLET_PASSWORD", "BT_WALLET_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


def made(root, password=None, **options):
    wallet = Wallet("cold", path=str(root))
    wallet.create_new_coldkey(
        use_password=password is not None, coldkey_password=password, suppress=True, **options
    )
    return wallet.coldkeypub.ss58_address


def message(*arguments):
    with pytest.raises(UsageError) as error:
        load_coldkey(*arguments)
    text = str(error.value)
    assert "\n" not in text and SECRET not in text
    return text


def test_an_open_coldkey_is_loaded_and_shows_only_its_address(tmp_path):
    address = made(tmp_path)
    key = load_coldkey("cold", tmp_path)
    assert key.ss58 == address and repr(key) == f"Coldkey({address})"


def test_an_encrypted_one_opens_with_the_password_in_the_environment_or_a_file(tmp_path, monkeypatch):
    address = made(tmp_path, SECRET)
    assert "nobody is there to ask" in message("cold", tmp_path)
    monkeypatch.setenv("BT_WALLET_PASSWORD", "wrong")
    assert "does not open" in message("cold", tmp_path)
    monkeypatch.delenv("BT_WALLET_PASSWORD")
    file = tmp_path / "password"
    monkeypatch.setenv("BT_WALLET_PASSWORD_FILE", str(file))
    assert "cannot be read" in message("cold", tmp_path)
    file.write_text("\n")
    assert "is empty" in message("cold", tmp_path)
    file.write_text(f"{SECRET}\n")
    assert load_coldkey("cold", tmp_path).ss58 == address


def test_what_is_no_coldkey_is_named_with_the_command_that_makes_one(tmp_path):
    assert "btcli wallet new-coldkey -w cold" in message("cold", tmp_path)
    assert "is no name of a key" in message("../cold", tmp_path)
    made(tmp_path)
    (tmp_path / "cold" / "coldkey").write_text("nonsense")
    assert "regen-coldkey" in message("cold", tmp_path)
    other = tmp_path / "other"
    made(other, crypto_type=CRYPTO_ED25519)
    assert "not of type sr25519" in message("cold", other)
    with pytest.raises(UsageError, match="derivation"):
        Coldkey.from_uri("nothing at all")
