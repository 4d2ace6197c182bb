"""The demo's verdict: the honest paid by the byte, cheats nothing, or one line why not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tensorage.demo.verdict import Row, judge

VALIDATORS = ("validator-1", "validator-2")


def row(uid, name, kind, share, emission, weight):
    weights = dict.fromkeys(VALIDATORS, weight)
    return Row(uid, name, kind, f"key-{uid}", share, emission=emission, weights=weights)


GOOD = [
    row(0, "one", "honest", 1, 1.0, 0.14),
    row(1, "two", "honest", 2, 2.1, 0.29),
    row(2, "four", "honest", 4, 4.0, 0.57),
    row(3, "half", "overwritten", 4, 0.0, 0.0),
    row(4, "zeros", "zeros", 4, 0.0, 0.0),
]


def changed(uid, **fields):
    return [replace(r, **fields) if r.uid == uid else r for r in GOOD]


def test_honest_miners_paid_by_the_byte_and_cheats_at_zero_are_as_it_should_be():
    assert judge(GOOD, VALIDATORS).ok


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (changed(0, weights={"validator-1": 0.1}), "validator-2 has set no weights"),
        (changed(1, emission=0.0), "two is honest and has no emission"),
        (changed(1, emission=2.4), "two is paid 1.20 times as much a byte as"),
        (changed(2, emission=3.0), "one is paid 1.40|two is paid 1.40"),
        (changed(3, emission=1e-9), "half cheats and has an emission"),
        (changed(4, weights={"validator-1": 0.0, "validator-2": 1e-4}), "zeros cheats and has a weight"),
    ],
)
def test_anything_else_is_named_in_one_line(rows, reason):
    judgement = judge(rows, VALIDATORS)
    assert not judgement.ok
    assert re.search(reason, judgement.reason)
