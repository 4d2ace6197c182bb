"""Device authorisation: codes that are approved once, used once, over in time, and never too many."""

import itertools
import random

import pytest

from tensorage.dataset.server.device import (
    CODE_SECONDS,
    GLYPHS,
    MAX_CODES,
    MAX_CODES_PER_ADDRESS,
    POLL_SECONDS,
    Codes,
)
from tensorage.dataset.server.refusal import Refusal


class Clock:
    now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def codes(clock: Clock) -> Codes:
    return Codes(clock, random.Random(7).randbytes, is_open=False)


def kind(call: object, *arguments: object) -> str:
    with pytest.raises(Refusal) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.kind


def test_a_code_is_approved_once_and_consumed_by_the_first_poll_after(codes: Codes) -> None:
    code = codes.issue("worker\n7\x1b[31m", "a")
    assert code.worker == "worker 7 [31m"
    assert len(code.user_code) == 9
    assert set(code.user_code) <= set(GLYPHS + "-")
    assert codes.poll(code.device_code) is None
    assert codes.approve(f"  {code.user_code.lower()}\n") is code
    assert kind(codes.approve, code.user_code) == "already_used"
    assert codes.poll(code.device_code) is code  # at once: who waited long enough need not wait again
    assert kind(codes.poll, code.device_code) == "invalid_grant"
    assert kind(codes.approve, code.user_code) == "invalid_code"


def test_a_code_is_given_back_where_no_token_could_be_made(codes: Codes) -> None:
    code = codes.issue("", "a")
    codes.approve(code.user_code)
    assert codes.poll(code.device_code) is code
    codes.restore(code)
    assert codes.poll(code.device_code) is code


def test_who_polls_too_often_is_told_to_slow_down(codes: Codes, clock: Clock) -> None:
    code = codes.issue("", "a")
    assert codes.poll(code.device_code) is None
    clock.now += POLL_SECONDS - 1
    assert kind(codes.poll, code.device_code) == "slow_down"
    clock.now += 1
    assert codes.poll(code.device_code) is None


def test_a_code_is_over_in_time_and_then_forgotten(codes: Codes, clock: Clock) -> None:
    code = codes.issue("", "a")
    codes.approve(code.user_code)
    clock.now += CODE_SECONDS
    assert kind(codes.poll, code.device_code) == "expired_token"
    assert kind(codes.approve, code.user_code) == "expired_code"
    clock.now += CODE_SECONDS
    codes.issue("", "a")
    assert len(codes) == 1
    assert kind(codes.poll, code.device_code) == "invalid_grant"


def test_with_open_membership_a_code_is_approved_as_it_is_issued(clock: Clock) -> None:
    codes = Codes(clock, random.Random(7).randbytes, is_open=True)
    code = codes.issue("", "a")
    assert codes.poll(code.device_code) is code


def test_neither_one_address_nor_a_crowd_makes_it_remember_too_much(codes: Codes, clock: Clock) -> None:
    for _ in range(MAX_CODES_PER_ADDRESS):
        codes.issue("", "greedy")
    assert kind(codes.issue, "", "greedy") == "too_many_codes"
    for number in itertools.count():
        if len(codes) == MAX_CODES:
            break
        codes.issue("", f"address {number}")
    with pytest.raises(Refusal) as caught:
        codes.issue("", "another")
    assert (caught.value.kind, caught.value.http_status) == ("too_many_codes", 503)
    clock.now += CODE_SECONDS
    codes.issue("", "greedy")
    assert len(codes) == 1
