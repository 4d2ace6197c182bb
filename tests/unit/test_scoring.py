"""The figures of docs/scoring.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorage.validator import scoring
from tensorage.validator.scoring import Standing

HOPS = 32


def passing(rounds: int, *, credited: int = 1 << 40, elapsed: float = 0.1) -> Standing:
    standing = Standing(credited_bytes=credited)
    for now in range(1, rounds + 1):
        standing = scoring.after_pass(standing, now, HOPS, elapsed)
    return standing


def test_the_lower_bound_is_that_of_wilson():
    # By hand: with no failure it is n / (n + z^2), z^2 = 5.41166.
    assert scoring.lower_bound(0, 0) == 0
    assert scoring.lower_bound(32, 32) == pytest.approx(32 / (32 + 2.3263**2))
    assert scoring.lower_bound(3200, 3200) == pytest.approx(0.99831, abs=1e-5)
    # (0.9 + z^2/200 - z sqrt(0.0009 + z^2/40000)) / (1 + z^2/100)
    assert scoring.lower_bound(90, 100) == pytest.approx(0.80846, abs=1e-5)


def test_a_newcomer_starts_at_zero_and_needs_evidence():
    assert scoring.score(Standing(credited_bytes=1 << 40)) == 0
    shares = [scoring.score(passing(rounds)) / (1 << 40) for rounds in (1, 10, 100, 1000)]
    assert shares == pytest.approx([0.855, 0.983, 0.998, 0.9995], abs=1e-3)


def test_one_wrong_answer_costs_fifty_passes_and_the_score_until_the_next_one():
    standing = scoring.after_wrong(passing(100), 101)
    assert scoring.score(standing) == 0
    now = 101
    while standing.integrity < 1:
        now += 1
        standing = scoring.after_pass(standing, now, HOPS, 0.1)
    assert now - 101 == 50


def test_a_pass_rate_of_98_percent_is_below_break_even():
    standing = passing(10)
    for now in range(11, 4011):
        standing = (
            scoring.after_wrong(standing, now)
            if now % 50 in (0, 25)  # 4 %
            else scoring.after_pass(standing, now, HOPS, 0.1)
        )
    assert standing.integrity <= 0.5


def test_fraud_takes_everything_and_a_quarantine_follows():
    standing = scoring.after_fraud(passing(500), 501)
    assert (standing.credited_bytes, standing.sampled, standing.integrity) == (0, 0, 0)
    assert scoring.quarantined(standing, 501 + scoring.QUARANTINE_ROUNDS - 1)
    assert not scoring.quarantined(standing, 501 + scoring.QUARANTINE_ROUNDS)
    # Registering the same hotkey anew does not end it.
    assert scoring.after_registration(standing, 600).quarantined_until == standing.quarantined_until


@pytest.mark.parametrize(("kept", "expected"), [(0.99, 0.725), (0.9, 0.034), (0.5, 0.0)])
def test_refusing_when_a_leaf_is_missing_costs_more_than_the_disk_it_saves(kept, expected):
    # The share of challenges that meet no missing leaf, and a score that follows it.
    answered = kept**HOPS
    standing = replace(passing(1000), answered=1000 * answered, missed=1000 * (1 - answered))
    share = scoring.score(standing) / scoring.score(passing(1000))
    assert share == pytest.approx(expected, abs=2e-3)
    assert share < kept


def test_the_second_asking_is_a_mercy_and_nothing_to_plan_with():
    standing, now = passing(100), 100
    for _ in range(scoring.FORGIVEN_EVERY * 4):
        now += 1
        standing = scoring.after_late_pass(standing, now)
    assert scoring.availability(standing) < 0.7
    assert scoring.latency_class(standing) == scoring.SLOWEST_CLASS
    assert standing.sampled < passing(100).sampled  # no evidence from it


def test_old_evidence_fades_by_half_in_its_half_life():
    standing = passing(100)
    later = scoring.at_round(standing, 100 + scoring.EVIDENCE_HALF_LIFE)
    assert later.sampled == pytest.approx(standing.sampled / 2)
    assert later.integrity == standing.integrity


def test_samples_of_old_sectors_say_nothing_of_new_ones():
    standing = passing(100)
    grown = scoring.diluted(standing, 100, kept=10, total=40)
    assert grown.sampled == pytest.approx(standing.sampled / 4)
    assert scoring.diluted(standing, 100, kept=7, total=7).sampled == standing.sampled


@pytest.mark.parametrize(
    ("share", "factor"), [(0.2, 1.0), (0.25, 1.0), (0.4, 0.95), (0.7, 0.9), (0.9, 0.8), (1.0, 0.8)]
)
def test_latency_is_a_mild_class(share, factor):
    assert scoring.latency_class(passing(5, elapsed=share)) == factor


def test_weights_are_shares_and_all_zero_when_nobody_scores():
    assert scoring.weights({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    assert scoring.weights({"a": 0.0, "b": 0.0}) == {"a": 0.0, "b": 0.0}


def test_serving_adds_half_of_what_was_read_up_to_a_tenth_of_the_credit():
    standing = passing(100, credited=1000)
    plain = scoring.score(standing)

    def gain(served: float, rate: float = 1.0) -> float:
        return scoring.score(scoring.after_serving(standing, served, rate)) / plain - 1

    assert [gain(served) for served in (0, 100, 200, 5000)] == pytest.approx([0, 0.05, 0.1, 0.1])
    assert gain(200, rate=0.5) == pytest.approx(0.05)
    assert gain(200, rate=0.0) == 0


def test_what_was_served_halves_in_a_day_and_is_no_more_than_the_shard():
    leaf, shard = 4096, 1024 * 4096
    assert scoring.served([(0, 512), (1, 256), (2, 256)], shard) == (512 + 128 + 64) * leaf
    assert scoring.served([(0, 1024), (1, 1024)], shard) == shard
    assert scoring.served([], shard) == 0


def test_a_fetch_of_ours_counts_the_less_the_older_it_is():
    assert scoring.fetch_rate([]) == 0
    assert scoring.fetch_rate([(0, True), (0, False)]) == 0.5
    assert scoring.fetch_rate([(0, True), (1, False)]) == pytest.approx(2 / 3)
