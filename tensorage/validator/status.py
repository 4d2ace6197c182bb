"""The table of scores, read from a ledger by another process while the validator runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..chain.address import public_key
from ..commitment import SignedCommitment
from ..errors import StorageError
from ..receipts import Verdict
from . import rows, scoring
from .ledger import connect_read_only


@dataclass(frozen=True, slots=True)
class MinerStatus:
    """One miner as its validator sees it. Bytes are bytes; the other figures are shares between 0 and 1.

    Attributes:
        verdict, reason: of the newest receipt about it, empty before the first.
        counts: receipts by verdict.
        bonus: bytes that serving clients adds to the credited ones.
        score: in bytes; `weight` is its share of the sum of all that are on the subnet.
        quarantined: whether it is out for fraud.
    """

    hotkey: str
    uid: int
    committed_bytes: int
    credited_bytes: int
    proven_bytes: float
    verdict: str
    reason: str
    counts: dict[str, int]
    integrity: float
    availability: float
    latency: float
    bonus: float
    score: float
    weight: float
    quarantined: bool


def read_status(path: Path) -> list[MinerStatus]:
    """All miners that are on the subnet, by uid, as of the newest round.

    Args:
        path: validator.sqlite.

    Raises:
        UsageError: there is no ledger of this version. StorageError: it cannot be read at the moment.
    """
    try:
        with closing(connect_read_only(path)) as db:
            db.execute("BEGIN")  # one snapshot for all of it
            now = db.execute("SELECT coalesce(max(round), 0) FROM rounds").fetchone()[0]
            found = db.execute(
                "SELECT miners.*, message FROM miners LEFT JOIN commitments ON hash = commitment"
                " WHERE present = 1 ORDER BY uid"
            ).fetchall()
            identity = dict(db.execute("SELECT key, value FROM meta").fetchall())
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be read: {error}", remedy="Try again in a moment") from error
    if not {"genesis", "netuid"} <= identity.keys():
        raise StorageError(f"{path} is being made", remedy="Try again in a moment")
    genesis, netuid = bytes.fromhex(identity["genesis"]), int(identity["netuid"])
    statuses = []
    for row in found:
        key = public_key(row["hotkey"])
        signed = (
            rows.read_message(row["message"], genesis=genesis, netuid=netuid, miner=key)
            if row["message"] is not None
            else None
        )
        miner = rows.read_miner(row, partial(_known, signed))
        standing = scoring.at_round(miner.standing, now)
        statuses.append(
            MinerStatus(
                hotkey=miner.hotkey,
                uid=miner.uid,
                committed_bytes=miner.committed_bytes,
                credited_bytes=standing.credited_bytes,
                proven_bytes=scoring.proven_bytes(standing),
                verdict=miner.verdict.word if miner.verdict else "",
                reason=miner.reason,
                counts={verdict.word: miner.counts.get(verdict, 0) for verdict in Verdict},
                integrity=standing.integrity,
                availability=scoring.availability(standing),
                latency=scoring.latency_class(standing),
                bonus=scoring.bonus(standing),
                score=scoring.score(standing),
                weight=0.0,
                quarantined=scoring.quarantined(standing, now),
            )
        )
    return _weighted(statuses)


def _known(signed: SignedCommitment | None, digest: bytes | None) -> SignedCommitment | None:
    return signed if digest is not None and signed and digest == signed.commitment.hash else None


def _weighted(statuses: list[MinerStatus]) -> list[MinerStatus]:
    weights = scoring.weights({status.hotkey: status.score for status in statuses})
    return [replace(status, weight=weights[status.hotkey]) for status in statuses]
