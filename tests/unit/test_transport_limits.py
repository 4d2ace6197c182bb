"""Token buckets and the keys they count by."""

from __future__ import annotations

import pytest

from tensorage.transport.limits import Rate, TokenBuckets, address_key
from tensorage.transport.refusals import one_line


def test_a_bucket_gives_its_burst_then_its_rate_and_says_how_long_to_wait():
    buckets = TokenBuckets(Rate(per_second=2, burst=3))
    assert [buckets.spend("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.spend("b", 100.0) == 0
    assert buckets.spend("a", 100.5) == 0
    assert buckets.spend("a", 100.5) == 0.5
    # Idle for long: the burst again, and no more; a clock that steps back gives nothing.
    assert [buckets.spend("a", 900.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.spend("a", 800.0) == 0.5


def test_the_key_used_longest_ago_is_forgotten_first():
    buckets = TokenBuckets(Rate(per_second=0.001, burst=1), max_keys=100)
    assert buckets.spend("kept", 0.0) == 0
    for number in range(1000):
        buckets.spend(str(number), 0.0)
        assert buckets.spend("kept", 0.0) > 0
    assert len(buckets) == 100


@pytest.mark.parametrize(("per_second", "burst"), [(0, 5), (-1, 5), (1, 0)])
def test_a_rate_that_lets_nothing_through_is_a_mistake(per_second, burst):
    with pytest.raises(ValueError, match="lets nothing through"):
        Rate(per_second, burst)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_addresses_are_counted_by_who_holds_them(address, key):
    assert address_key(address) == key


def test_a_line_is_printable_and_short():
    assert one_line("a\r\nb\t\x1b[31m  c\u2028d") == "a b [31m c d"
    assert len(one_line("x" * 10**6)) == 200
