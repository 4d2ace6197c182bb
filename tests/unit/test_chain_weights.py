"""When weights may be set and whether they landed."""

import pytest
from bittensor import ChainError, ErrorCode, ExtrinsicResult
from hypothesis import given
from hypothesis import strategies as st

from tensorage.chain.extrinsics import judge
from tensorage.chain.weights import ERA, Attempt, allowed_from, fate, normalised


@given(st.dictionaries(st.integers(0, 255), st.floats(0, 1e300, allow_subnormal=False), max_size=64))
def test_weights_become_shares_that_keep_their_order_and_add_up_to_one(weights):
    shares = normalised(weights)
    assert list(shares) == sorted(shares)
    if any(weights.values()):
        assert sum(shares.values()) == pytest.approx(1)
        heaviest = max(weights, key=lambda uid: weights[uid])
        assert shares[heaviest] == max(shares.values())
    else:
        assert shares == {}


@pytest.mark.parametrize(
    "weights", [{1: -0.1}, {1: float("nan")}, {1: float("inf")}, {-1: 1.0}, {65536: 1.0}]
)
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(ValueError, match=r"weight|uid"):
        normalised(weights)


@pytest.mark.parametrize(
    ("last_update", "rate_limit", "height"), [(0, 100, 0), (500, 0, 0), (500, 100, 600), (1, 1, 2)]
)
def test_weights_are_allowed_once_the_rate_limit_has_passed_since_the_last_update(
    last_update, rate_limit, height
):
    assert allowed_from(last_update, rate_limit) == height


def test_weights_of_unknown_fate_are_pending_until_seen_or_until_their_era_is_over():
    attempt = Attempt(1000)
    unseen = {"last_update": 900, "commits": [950, 1000]}
    assert fate(attempt, head=1000, **unseen) == "pending"
    assert fate(attempt, head=1000 + ERA, **unseen) == "pending"
    assert fate(attempt, head=1001 + ERA, **unseen) == "lost"
    assert fate(attempt, head=1001, last_update=1001, commits=[]) == "landed"
    assert fate(attempt, head=1003, last_update=900, commits=[1002]) == "landed"
    # Seen late is still seen.
    assert fate(attempt, head=9999, last_update=1001, commits=[]) == "landed"


def failure(message: str, name: str | None = None, block_hash: str | None = None) -> ExtrinsicResult:
    return ExtrinsicResult(
        success=False, message=message, block_hash=block_hash, error=ChainError(message, name)
    )


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (failure("no permit", "NeuronNoValidatorPermit", "0xab"), "failed"),
        (failure("something new", None, "0xab"), "failed"),
        (failure("a per-key rate limit", "RateLimitExceeded"), "failed"),
        (failure("bad signature", "BadProof"), "failed"),
        (failure("Connection dropped while an extrinsic submission was in flight"), "unknown"),
        (failure("The transaction may already be on chain — verify balances before retrying."), "unknown"),
        (failure("priority too low: one with this nonce is in the pool", "PriorityTooLow"), "unknown"),
        (failure("already imported", "AlreadyImported"), "unknown"),
        (failure("dropped", "Dropped"), "unknown"),
    ],
)
def test_only_what_cannot_land_any_more_counts_as_failed(result, status):
    assert judge(result).status == status


def test_a_refusal_names_the_error_and_what_to_do_on_one_line():
    sent = judge(failure("The caller does\nnot have a permit.", "NeuronNoValidatorPermit", "0xab"))
    assert sent.code is ErrorCode.NOT_AUTHORIZED
    assert sent.message.startswith("NeuronNoValidatorPermit: The caller does not have a permit. this hotkey")
    assert "\n" not in sent.message


def test_a_success_tells_its_block_and_its_extras():
    sent = judge(
        ExtrinsicResult(success=True, message="Success", extrinsic_id="812-0003", data={"reveal_round": 9})
    )
    assert (sent.status, sent.block, sent.data["reveal_round"]) == ("done", 812, 9)
