"""What holds of every score, whatever happened."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tensorage.validator import scoring
from tensorage.validator.scoring import Standing

counts = st.floats(0, 1e6)
shares = st.floats(0, 1)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    sampled = draw(counts)
    return Standing(
        round=draw(st.integers(0, 1000)),
        credited_bytes=draw(st.integers(0, 1 << 48)),
        passed=sampled * draw(shares),
        sampled=sampled,
        integrity=draw(shares),
        wrong_last=draw(st.booleans()),
        answered=draw(counts),
        missed=draw(counts),
        latency=draw(st.none() | shares),
        quarantined_until=draw(st.sampled_from([0, 2000])),
        forgiven_round=draw(st.none() | st.integers(0, 1000)),
    )


EVENTS = ("pass", "late pass", "wrong", "miss", "fraud")


def after(standing: Standing, event: str) -> Standing:
    now = standing.round + 1
    if event == "pass":
        return scoring.after_pass(standing, now, 32, 0.1)
    if event == "late pass":
        return scoring.after_late_pass(standing, now)
    if event == "wrong":
        return scoring.after_wrong(standing, now)
    if event == "miss":
        return scoring.after_miss(standing, now)
    return scoring.after_fraud(standing, now)


@given(standings(), st.lists(st.sampled_from(EVENTS), max_size=20))
def test_a_score_is_never_below_zero_nor_above_the_credited_bytes(standing, events):
    for event in events:
        standing = after(standing, event)
        assert 0 <= scoring.score(standing) <= standing.credited_bytes
        assert 0 <= standing.integrity <= 1
        assert 0 <= scoring.availability(standing) <= 1
        assert standing.passed <= standing.sampled * (1 + 1e-9)


@given(standings())
def test_a_wrong_answer_never_raises_the_score_and_a_pass_after_it_does_not_make_up_for_it(standing):
    wrong = after(standing, "wrong")
    assert scoring.score(wrong) == 0
    without = scoring.after_pass(standing, wrong.round + 1, 32, 0.1)
    assert scoring.score(after(wrong, "pass")) <= scoring.score(without) * (1 + 1e-9)


@given(standings())
def test_a_miss_never_raises_the_score(standing):
    later = scoring.at_round(standing, standing.round + 1)
    assert scoring.score(after(standing, "miss")) <= scoring.score(later) * (1 + 1e-9)


@given(standings(), st.integers(0, 1 << 40))
def test_more_credited_bytes_never_lower_the_score(standing, more):
    grown = replace(standing, credited_bytes=standing.credited_bytes + more)
    assert scoring.score(grown) >= scoring.score(standing)


@given(standings(), st.integers(1, 8))
def test_splitting_a_miner_in_parts_earns_nothing(standing, parts):
    whole = replace(standing, credited_bytes=standing.credited_bytes // parts * parts)
    part = replace(whole, credited_bytes=whole.credited_bytes // parts)
    assert parts * scoring.score(part) <= scoring.score(whole) * (1 + 1e-9) + 1e-9


@given(counts, counts)
def test_the_lower_bound_is_below_the_rate_and_rises_with_the_evidence(passed, failed):
    sampled = passed + failed
    bound = scoring.lower_bound(passed, sampled)
    assert 0 <= bound <= 1
    if sampled:
        assert bound <= passed / sampled + 1e-9
    assert scoring.lower_bound(2 * passed, 2 * sampled) >= bound - 1e-9
    assert scoring.lower_bound(passed, sampled + 1) <= bound + 1e-9


@given(standings(), st.integers(0, 500), st.integers(0, 500))
def test_fading_twice_is_fading_once_for_as_long(standing, a, b):
    once = scoring.at_round(standing, standing.round + a + b)
    twice = scoring.at_round(scoring.at_round(standing, standing.round + a), standing.round + a + b)
    assert abs(once.sampled - twice.sampled) <= 1e-6 * (1 + once.sampled)
    assert abs(once.answered - twice.answered) <= 1e-6 * (1 + once.answered)
