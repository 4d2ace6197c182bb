"""btauth/1 as the SDK's guide publishes it, and the edges that a peer can push at."""

import hashlib

import pytest
from bittensor import http_auth
from hypothesis import given
from hypothesis import strategies as st

from tensorage.chain import auth
from tensorage.chain.wallet import Hotkey
from tensorage.errors import RequestError

ALICE = Hotkey.from_uri("//Alice")
BOB = Hotkey.from_uri("//Bob")
NONCE = 1752076800000000000
REQUEST = {"method": "POST", "path": "/generate?stream=false"}
BODY = b'{"prompt": "hello"}'


class Memory:
    """A nonce store that forgets nothing."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        fresh = (hotkey_ss58, nonce_ns) not in self.seen
        self.seen.add((hotkey_ss58, nonce_ns))
        return fresh


def signed(**changes: str) -> dict[str, str]:
    headers = auth.sign_request(ALICE, **REQUEST, body=BODY, receiver=BOB.ss58, nonce_ns=NONCE)
    return {**headers, **changes}


def accept(headers: dict[str, str], nonces: Memory | None = None, **changes: object) -> str:
    arguments = {**REQUEST, "receiver": BOB.ss58, "now_ns": NONCE, "body": BODY, **changes}
    body = arguments.pop("body")
    return auth.verify_request(headers, body, nonces=nonces or Memory(), **arguments)


def test_the_published_vector_is_what_is_signed():
    assert ALICE.ss58 == "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    assert BOB.ss58 == "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    assert (
        hashlib.sha256(BODY).hexdigest() == "341c57448e531310fbbe83f44cea2a5e838bd9e8a6b82b269f01d0dbbc23c3cc"
    )
    payload = http_auth.build_payload(
        scheme="sr25519",
        method="post",
        path=REQUEST["path"],
        body=BODY,
        nonce_ns=NONCE,
        sender_ss58=ALICE.ss58,
        receiver_ss58=BOB.ss58,
    )
    assert (
        hashlib.sha256(payload).hexdigest()
        == "baf86fd1c333d473ab47b43f8dbd682d51df91b5db8ec09ee06d86f80f4075fd"
    )
    headers = signed()
    assert headers["X-Bittensor-Nonce"] == "1752076800000000000"
    assert "X-Bittensor-Crypto" not in headers
    signature = bytes.fromhex(headers["X-Bittensor-Signature"].removeprefix("0x"))
    assert auth.verify(ALICE.public_key, payload, signature)


def test_a_signed_request_names_its_sender_whatever_the_case_of_the_headers():
    assert accept(signed()) == ALICE.ss58
    assert accept({name.lower(): value for name, value in signed().items()}) == ALICE.ss58


def test_a_request_is_accepted_once():
    nonces = Memory()
    accept(signed(), nonces)
    with pytest.raises(RequestError, match="already accepted") as refusal:
        accept(signed(), nonces)
    assert (refusal.value.kind, refusal.value.http_status) == ("unauthenticated", 401)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"path": "/generate?stream=true"},
        {"path": "/generate"},
        {"body": BODY + b" "},
        {"receiver": ALICE.ss58},
        {"now_ns": NONCE + 10_000_000_001},
        {"now_ns": NONCE - 2_000_000_001},
    ],
)
def test_a_request_that_is_not_the_signed_one_is_refused_and_leaves_the_nonce_unused(changes):
    nonces = Memory()
    with pytest.raises(RequestError):
        accept(signed(), nonces, **changes)
    assert not nonces.seen


@pytest.mark.parametrize("header", ["Version", "Hotkey", "Receiver", "Nonce", "Signature"])
def test_a_missing_header_is_refused(header):
    headers = signed()
    del headers[f"X-Bittensor-{header}"]
    with pytest.raises(RequestError) as refusal:
        accept(headers)
    assert refusal.value.kind == "unauthenticated"


def test_an_ed25519_signature_is_refused_although_the_sdk_would_take_it():
    # The guide's vector of //Alice as an ed25519 key; good, and not what a hotkey here is.
    headers = {
        "X-Bittensor-Version": "1",
        "X-Bittensor-Hotkey": "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu",
        "X-Bittensor-Receiver": BOB.ss58,
        "X-Bittensor-Nonce": str(NONCE),
        "X-Bittensor-Crypto": "ed25519",
        "X-Bittensor-Signature": "0x1a6b631988bf1f7ea093ab9d5acf61f05c316d0b0e428b24b487b75a5f6ee0e1"
        "a56a26918fdf871b6cf09437e6588023a4ce423cf622621b2a7feee17612f704",
    }
    with pytest.raises(RequestError) as refusal:
        accept(headers)
    assert refusal.value.kind == "unauthenticated"


def test_the_same_key_under_another_network_s_address_is_refused():
    # //Alice with the prefix of Polkadot: the SDK decodes it, so one key would have two names.
    stranger = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"
    payload = http_auth.build_payload(
        scheme="sr25519",
        **REQUEST,
        body=BODY,
        nonce_ns=NONCE,
        sender_ss58=stranger,
        receiver_ss58=BOB.ss58,
    )
    signature = "0x" + ALICE.sign(payload).hex()
    with pytest.raises(RequestError, match="no SS58 address"):
        accept(signed(**{"X-Bittensor-Hotkey": stranger, "X-Bittensor-Signature": signature}))


def test_a_fault_of_our_own_is_not_blamed_on_the_peer():
    class Forgetful(Memory):
        retention = 1.0

    with pytest.raises(ValueError, match="retains entries"):
        accept(signed(), Forgetful())


text = st.text(max_size=80)


@given(
    st.dictionaries(st.sampled_from([*auth.HEADERS, "X-Other"]), text), st.binary(max_size=64), st.booleans()
)
def test_no_header_whatever_leaves_the_tree_of_errors(changes, body, start_from_good):
    headers = {**(signed() if start_from_good else {}), **changes}
    try:
        caller = accept(headers, body=body)
    except RequestError as refusal:
        assert refusal.kind == "unauthenticated"
        assert "\n" not in str(refusal)
    else:
        assert caller == ALICE.ss58
        assert body == BODY


@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=70))
def test_malformed_keys_and_signatures_verify_as_false(message, key, signature):
    assert auth.verify(key, message, signature) is False
    assert auth.verify(ALICE.public_key, message, signature) is False


def test_a_signature_verifies_for_its_key_and_message_only():
    signature = ALICE.sign(b"message")
    assert auth.verify(ALICE.public_key, b"message", signature)
    assert not auth.verify(BOB.public_key, b"message", signature)
    assert not auth.verify(ALICE.public_key, b"massage", signature)
