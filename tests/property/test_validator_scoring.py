"""What holds of every score, whatever happened."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import assume, given
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
        served_bytes=draw(st.floats(0, 1 << 48)),
        fetch_rate=draw(shares),
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
def test_a_score_is_never_below_zero_nor_a_tenth_above_the_credited_bytes(standing, events):
    for event in events:
        standing = after(standing, event)
        assert 0 <= scoring.score(standing) <= standing.credited_bytes * (1 + scoring.BONUS_CAP)
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
    part = replace(
        whole, credited_bytes=whole.credited_bytes // parts, served_bytes=whole.served_bytes / parts
    )
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


@given(standings(), st.floats(0, 100))
def test_a_score_is_linear_in_bytes_kept_and_served(standing, factor):
    assume(not scoring.quarantined(standing, standing.round))
    scaled = replace(
        standing,
        credited_bytes=standing.credited_bytes * factor,
        served_bytes=standing.served_bytes * factor,
    )
    assert math.isclose(scoring.score(scaled), factor * scoring.score(standing), rel_tol=1e-9, abs_tol=1e-6)


@given(standings(), st.floats(0, 1 << 40), shares)
def test_serving_more_or_better_never_lowers_the_score(standing, more, better):
    grown = replace(
        standing,
        served_bytes=standing.served_bytes + more,
        fetch_rate=max(standing.fetch_rate, better),
    )
    assert scoring.score(grown) >= scoring.score(standing)


@given(standings())
def test_a_bonus_is_at_most_a_tenth_of_the_credit_and_half_of_what_was_served(standing):
    assert 0 <= scoring.bonus(standing) <= standing.credited_bytes * scoring.BONUS_CAP * (1 + 1e-9)
    assert scoring.bonus(standing) <= standing.served_bytes * scoring.SERVED_VALUE
    assert scoring.bonus(replace(standing, fetch_rate=0.0)) == 0
    assert scoring.bonus(replace(standing, credited_bytes=0)) == 0


@given(standings(), st.integers(0, 1 << 40))
def test_a_byte_that_is_served_earns_less_than_a_byte_more_of_filler(standing, size):
    serving = replace(standing, served_bytes=standing.served_bytes + size)
    filling = replace(standing, credited_bytes=standing.credited_bytes + size)
    assert scoring.score(serving) <= scoring.score(filling) * (1 + 1e-9)


reads = st.lists(st.tuples(st.floats(0, 7), st.integers(0, 1024)), max_size=8)


@given(reads, st.sampled_from([16 * 4096, 1024 * 4096]), st.floats(0, 7))
def test_what_was_served_is_never_more_than_the_shard_and_fades(leaves, size, days):
    now = scoring.served(leaves, size)
    assert 0 <= now <= size
    assert scoring.served([(ago + days, count) for ago, count in leaves], size) <= now


@given(st.lists(st.tuples(st.floats(0, 7), st.booleans()), max_size=20))
def test_the_rate_of_our_fetches_is_a_share_that_a_failure_never_raises(fetches):
    rate = scoring.fetch_rate(fetches)
    assert 0 <= rate <= 1
    assert scoring.fetch_rate([*fetches, (0.0, False)]) <= rate
