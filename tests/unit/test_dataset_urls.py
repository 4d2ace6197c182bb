"""Which addresses a buyer talks to, and which may see a token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.dataset.buyer.urls import mirror, parse, place
from tensorage.errors import UsageError


@pytest.mark.parametrize(
    ("text", "id", "base", "found"),
    [
        ("https://a.example/dataset/chats", None, "https://a.example", "chats"),
        ("https://a.example/dataset/chats/", None, "https://a.example", "chats"),
        ("https://a.example/dataset/chats/v3", None, "https://a.example", "chats"),
        ("https://a.example:443/x/dataset/chats/versions", None, "https://a.example/x", "chats"),
        ("HTTPS://A.Example:8443/dataset/chats", "mine", "https://a.example:8443", "mine"),
        ("http://[::1]:80", "mine", "http://[::1]", "mine"),
    ],
)
def test_a_url_names_a_server_and_maybe_a_dataset(text, id, base, found):
    there = place(text, id)
    assert (there.base, there.id) == (base, found)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a.example/dataset/chats",
        "https://user:pass@a.example/dataset/chats",
        "https://a.example/dataset/chats?x=1",
        "https://a.example/dataset/chats#x",
        "https:///dataset/chats",
        "https://a.example:0/dataset/chats",
        "https://a.example:99999/dataset/chats",
        "https://a.example/dataset/../chats",
        "https://a.example/dataset/con",
        "https://a.example",
        "https://a.exa\nmple/dataset/chats",
        "https://a.example\\@b.example/dataset/chats",
        "https://ä.example/dataset/chats",
        "https://[::1/dataset/chats",
        "a.example/dataset/chats",
    ],
)
def test_what_is_no_address_of_a_dataset_is_refused(text):
    with pytest.raises(UsageError):
        place(text, None)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]", True),
        ("http://localhost:1", True),
        ("http://a.example", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://0x7f.1", False),
        ("http://2130706433", False),
        ("http://0.0.0.0", False),
    ],
)
def test_a_token_travels_over_tls_or_stays_on_this_machine(text, private):
    there = place(text, "chats")
    if private:
        there.check_private()
    else:
        with pytest.raises(UsageError, match="plain HTTP"):
            there.check_private()


def test_a_mirror_may_be_a_file_a_directory_or_a_pattern():
    told = ("chats", 3, b"\xab" * 32)
    assert mirror("https://m/x", *told).url == "https://m/x"
    assert mirror("https://m/x/", *told).url == "https://m/x/chats-v3.jsonl"
    assert mirror("https://m/{id}/{version}/{sha256}", *told).url == f"https://m/chats/3/{'ab' * 32}"


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text):
    for prefix in ("", "http://", "https://h/dataset/"):
        try:
            address = parse(prefix + text)
        except UsageError:
            continue
        assert parse(address.url) == address
        assert address.url.isascii() and address.url.isprintable()
