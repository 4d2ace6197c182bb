"""Whose clients may use how much: chunks shared out among validators by stake, largest remainder first.

Each validator gets the whole part of its exact share, and what is left over goes one chunk each to the
largest fractions (Hamilton's method); equal fractions in ascending order of address. Arithmetic is exact, so
every miner gets the same quotas from the same stakes. The quotas govern whose clients' data may take the
place of filler; moving them touches no sealed byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


def quotas(stakes: Mapping[str, float | int], chunks: int) -> dict[str, int]:
    """Share out `chunks` in proportion to stake; the values add up to `chunks` unless nobody has any stake.

    Args:
        stakes: SS58 address -> stake, in any one unit; finite and not negative.
        chunks: how many there are to share.

    Raises:
        ValueError: a stake is negative or not finite, or `chunks` is negative.
    """
    if chunks < 0:
        raise ValueError(f"{chunks} chunks cannot be shared out")
    exact: dict[str, Fraction] = {}
    for who, stake in stakes.items():
        try:
            exact[who] = Fraction(stake)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"stake of {who} is {stake}, which is no amount") from error
        if exact[who] < 0:
            raise ValueError(f"stake of {who} is {stake}, which is below zero")
    total = sum(exact.values())
    if total == 0:
        return dict.fromkeys(sorted(exact), 0)
    shares = {who: chunks * stake / total for who, stake in exact.items()}
    result = {who: int(share) for who, share in sorted(shares.items())}
    left = chunks - sum(result.values())
    for who in sorted(result, key=lambda who: (result[who] - shares[who], who))[:left]:
        result[who] += 1
    return result
