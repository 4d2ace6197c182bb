"""What operators and clients write: names, quotas, API keys."""

import pytest

from tensorage.chain.wallet import Hotkey
from tensorage.errors import UsageError
from tensorage.gateway.accounts import ApiKey, account_name, parse_quota

VALIDATOR = Hotkey.from_uri("//V").ss58


def test_quotas_are_read_in_powers_of_a_thousand_and_of_1024():
    amounts = {
        "10GB": 10**10,
        "500MB": 5 * 10**8,
        "1TiB": 1 << 40,
        "1.5 kb": 1500,
        "4096B": 4096,
        "2gib": 2 << 30,
    }
    assert {text: parse_quota(text) for text in amounts} == amounts


@pytest.mark.parametrize("text", ["", "10", "10G", "-1GB", "1e9B", "GB", "1 000GB", "9999PB", "1GB extra"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError):
        parse_quota(text)


@pytest.mark.parametrize("text", ["", "a b", "../x", "-x", "x" * 65, "ä", "a\n"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(UsageError):
        account_name(text)
    assert account_name("alice@example.org") == "alice@example.org"


def test_an_api_key_is_read_back_and_shows_its_seed_nowhere_else():
    made = ApiKey.new(VALIDATOR)
    read = ApiKey.parse(f" {made.text()}\n")
    assert read.validator == VALIDATOR
    assert read.key.public_key == made.key.public_key
    assert made.key.seed.hex() not in repr(made)


def test_a_misspelt_api_key_is_refused_without_repeating_it():
    text = ApiKey.new(VALIDATOR).text()
    seed = text[-64:]
    wrong = [
        text[:-1],
        text + "0",
        "tsk2" + text[4:],
        text.replace(VALIDATOR, VALIDATOR[:-1] + ("A" if VALIDATOR[-1] != "A" else "B")),
        text[:-64] + "G" * 64,
        seed,
    ]
    for bad in wrong:
        with pytest.raises(UsageError) as refused:
            ApiKey.parse(bad)
        assert seed not in str(refused.value)
