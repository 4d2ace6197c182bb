"""The score of a miner: what it is made of, how every verdict moves it. Pure; docs/scoring.md argues it.

    score  = LCB99 * integrity^2 * availability * latency * (credited_bytes + bonus)
    LCB99  = lower bound of passed leaves / sampled leaves                Wilson, one-sided, z = 2.3263
    bonus  = min(credited_bytes / 10, served_bytes / 2) * fetch_rate      weight = score / sum of scores

Rules. Bytes earn nothing before they are audited and sampled; bytes that have left earn nothing at once. One
wrong answer costs fifty passes, and the score is zero until the next pass. Fraud costs everything and a
quarantine. Refusing costs at least what it saves. A score is linear in bytes, so that splitting a miner in
two earns nothing. Old evidence fades, and says nothing of sectors that it did not cover. Serving clients
earns a little on top of capacity and never without it, and a byte served less than a byte more of filler.

Rounds are the only clock. Any change to a constant or a rule here raises SCORE_VERSION and gets a line in
docs/scoring.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .. import seal

SCORE_VERSION = 2

Z_99 = 2.3263
#: Rounds after which evidence, or an answer or a miss, counts half.
EVIDENCE_HALF_LIFE = 288  # a day of rounds of 300 s
AVAILABILITY_HALF_LIFE = 72  # six hours
PASS_GAIN = 0.01
WRONG_LOSS = 0.5  # fifty passes
#: Rounds for which a fraud is out; afterwards it passes this many audits before it has credit again.
QUARANTINE_ROUNDS = 288
REAUDIT_SECTORS = 4
#: A pass at the second asking is no miss, at most once in so many rounds.
FORGIVEN_EVERY = 12
#: Weight of the newest answer in the mean of elapsed / deadline.
LATENCY_STEP = 0.2
LATENCY_CLASSES = ((0.25, 1.0), (0.5, 0.95), (0.75, 0.9))
SLOWEST_CLASS = 0.8
#: Most that serving clients adds, as a share of the credited bytes; and what a byte served adds until then.
BONUS_CAP = 0.1
SERVED_VALUE = 0.5
#: Days after which a byte that was served, or a fetch of our own, counts half.
SERVING_HALF_LIFE = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What a score is made of, as of the round `round`; counts are real numbers, since they fade.

    Attributes:
        credited_bytes: bytes of the sectors that an audit covers.
        passed, sampled: leaves that verified, and leaves that were asked for and answered.
        integrity: 0 to 1.
        wrong_last: whether the newest verdict that concerns integrity is `wrong`.
        answered, missed: challenges that were, and were not, answered.
        latency: mean of elapsed / deadline over answers, None before the first.
        quarantined_until: the first round in which it is asked again, 0 when it is not in quarantine.
        forgiven_round: the round of the last pass at the second asking that was no miss; None for never.
        served_bytes: of clients' shards, what was read lately; see `served`.
        fetch_rate: the share of our own fetches, made as a client makes them, that brought the right bytes in
            time; 0 before the first. See `fetch_rate`.
    """

    round: int = 0
    credited_bytes: int = 0
    passed: float = 0.0
    sampled: float = 0.0
    integrity: float = 1.0
    wrong_last: bool = False
    answered: float = 0.0
    missed: float = 0.0
    latency: float | None = None
    quarantined_until: int = 0
    forgiven_round: int | None = None
    served_bytes: float = 0.0
    fetch_rate: float = 0.0


def lower_bound(passed: float, sampled: float) -> float:
    """The 99 % lower confidence bound of a pass rate (Wilson 1927, one-sided); 0 without samples."""
    if sampled <= 0:
        return 0.0
    rate = min(1.0, max(0.0, passed / sampled))
    z2 = Z_99 * Z_99 / sampled
    spread = Z_99 * math.sqrt(rate * (1 - rate) / sampled + z2 / (4 * sampled))
    return min(rate, max(0.0, (rate + z2 / 2 - spread) / (1 + z2)))


def availability(standing: Standing) -> float:
    """The share of challenges that were answered; 0 before the first."""
    asked = standing.answered + standing.missed
    return standing.answered / asked if asked > 0 else 0.0


def latency_class(standing: Standing) -> float:
    """The factor for speed, 0.8 to 1; 1 before the first answer, when nothing is proven anyway."""
    if standing.latency is None:
        return 1.0
    for limit, factor in LATENCY_CLASSES:
        if standing.latency <= limit:
            return factor
    return SLOWEST_CLASS


def proven_bytes(standing: Standing) -> float:
    """Bytes that are there at 99 % confidence."""
    return standing.credited_bytes * lower_bound(standing.passed, standing.sampled)


def served(leaves: Iterable[tuple[float, int]], size: int) -> float:
    """Bytes of one shard that count as served.

    Args:
        leaves: (days ago, distinct leaves that a client read on that day).
        size: bytes of the shard; more than these never count.
    """
    faded = sum(count * seal.LEAF_SIZE * _faded(days) for days, count in leaves)
    return min(float(size), faded)


def fetch_rate(fetches: Iterable[tuple[float, bool]]) -> float:
    """The share of our own fetches that brought the right bytes in time; 0 without any.

    Args:
        fetches: (days ago, whether it did).
    """
    weighed = [(_faded(days), passed) for days, passed in fetches]
    total = sum(weight for weight, _ in weighed)
    return sum(weight for weight, passed in weighed if passed) / total if total > 0 else 0.0


def _faded(days: float) -> float:
    return float(0.5 ** (max(0.0, days) / SERVING_HALF_LIFE))


def bonus(standing: Standing) -> float:
    """What serving clients adds to the credited bytes, in bytes."""
    most = BONUS_CAP * standing.credited_bytes
    return min(most, SERVED_VALUE * standing.served_bytes) * standing.fetch_rate


def score(standing: Standing) -> float:
    """The score, in bytes."""
    if standing.wrong_last or quarantined(standing, standing.round):
        return 0.0
    earning = standing.credited_bytes + bonus(standing)
    trust = lower_bound(standing.passed, standing.sampled) * standing.integrity**2
    return earning * trust * availability(standing) * latency_class(standing)


def weights(scores: Mapping[str, float]) -> dict[str, float]:
    """Each one's share of the sum; all 0 when there is no score at all."""
    total = sum(scores.values())
    return {key: value / total if total > 0 else 0.0 for key, value in scores.items()}


def quarantined(standing: Standing, now: int) -> bool:
    """Whether the miner is in quarantine in round `now`."""
    return now < standing.quarantined_until


def at_round(standing: Standing, now: int) -> Standing:
    """The same standing, its evidence as faded as it is in round `now`."""
    rounds = now - standing.round
    if rounds <= 0:
        return standing
    evidence = 0.5 ** (rounds / EVIDENCE_HALF_LIFE)
    presence = 0.5 ** (rounds / AVAILABILITY_HALF_LIFE)
    return replace(
        standing,
        round=now,
        passed=standing.passed * evidence,
        sampled=standing.sampled * evidence,
        answered=standing.answered * presence,
        missed=standing.missed * presence,
        served_bytes=standing.served_bytes * evidence,
    )


def after_pass(standing: Standing, now: int, leaves: int, elapsed_share: float) -> Standing:
    """A challenge passed at the first asking: `leaves` verified within `elapsed_share` of the deadline."""
    standing = at_round(standing, now)
    return replace(
        _believed(standing, elapsed_share),
        passed=standing.passed + leaves,
        sampled=standing.sampled + leaves,
        answered=standing.answered + 1,
    )


def after_late_pass(standing: Standing, now: int) -> Standing:
    """A challenge passed at the second asking.

    The leaves are no evidence: there was time to rebuild one. It is no miss either, but only now and then,
    so that a second deadline is a mercy for accidents and nothing to plan with.
    """
    standing = _believed(at_round(standing, now), 1.0)
    last = standing.forgiven_round
    if last is None or now - last >= FORGIVEN_EVERY:
        return replace(standing, forgiven_round=now)
    return replace(standing, missed=standing.missed + 1)


def after_wrong(standing: Standing, now: int) -> Standing:
    """An answer whose bytes do not verify. What did verify in it is no evidence."""
    standing = at_round(standing, now)
    return replace(
        standing,
        sampled=standing.sampled + 1,
        integrity=max(0.0, standing.integrity - WRONG_LOSS),
        wrong_last=True,
    )


def after_miss(standing: Standing, now: int) -> Standing:
    """Late, refused or unreachable, twice."""
    standing = at_round(standing, now)
    return replace(standing, missed=standing.missed + 1)


def after_fraud(standing: Standing, now: int) -> Standing:
    """A seal that differs, or two stories in one chain: nothing is left, and a quarantine begins."""
    return Standing(round=now, integrity=0.0, wrong_last=True, quarantined_until=now + QUARANTINE_ROUNDS)


def after_registration(standing: Standing, now: int) -> Standing:
    """The hotkey was registered anew: it starts from zero, and takes along what it had lost."""
    return Standing(round=now, integrity=standing.integrity, quarantined_until=standing.quarantined_until)


def diluted(standing: Standing, now: int, kept: int, total: int) -> Standing:
    """A new commitment holds `total` sectors, `kept` of them unchanged from the one before.

    Samples of the old sectors say nothing of the new ones.
    """
    standing = at_round(standing, now)
    factor = kept / total if total else 0.0
    return replace(standing, passed=standing.passed * factor, sampled=standing.sampled * factor)


def after_serving(standing: Standing, served_bytes: float, rate: float) -> Standing:
    """What clients read and our own fetches brought, as it is known now."""
    return replace(standing, served_bytes=max(0.0, served_bytes), fetch_rate=min(1.0, max(0.0, rate)))


def _believed(standing: Standing, elapsed_share: float) -> Standing:
    share = min(1.0, max(0.0, elapsed_share))
    mean = standing.latency
    return replace(
        standing,
        integrity=min(1.0, standing.integrity + PASS_GAIN),
        wrong_last=False,
        latency=share if mean is None else mean + LATENCY_STEP * (share - mean),
    )
