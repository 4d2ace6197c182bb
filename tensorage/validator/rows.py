"""Rows of validator.sqlite as records, and back. No SQL runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from typing import Any

from ..commitment import Entry, SignedCommitment
from ..encoding import HASH_SIZE, u64
from ..receipts import Verdict
from ..ticket import SignedTicket
from ..transport.messages import CommitmentMessage
from .scoring import Standing
from .slots import Slot
from .standing import Draw, Miner

STANDING_COLUMNS = tuple(column.name for column in fields(Standing))
MINER_COLUMNS = (
    "hotkey",
    "public_key",
    "uid",
    "registered_at",
    "present",
    "commitment",
    "seen_block",
    "previous",
    "previous_seen",
    "draw_sector",
    "draw_block",
    "draw_block_hash",
    "draw_round",
    "audits_due",
    "last_audit",
    "verdict",
    "reason",
    "failing",
    "counts",
    *STANDING_COLUMNS,
)

SLOT_COLUMNS = ("hotkey", "sector", "chunk", "ticket", "filler", "accepted", "flaw", "good_until")
_MOST_SECONDS = (1 << 63) - 1

_ENTRY = 8 + HASH_SIZE


def miner_row(miner: Miner, *, present: bool) -> tuple[Any, ...]:
    """The values of MINER_COLUMNS."""
    draw = miner.draw
    return (
        miner.hotkey,
        miner.public_key,
        miner.uid,
        miner.registered_at,
        int(present),
        miner.commitment.commitment.hash if miner.commitment else None,
        miner.seen_block,
        miner.previous.commitment.hash if miner.previous else None,
        miner.previous_seen,
        *((u64(draw.sector), draw.block_number, draw.block_hash, draw.round) if draw else (None,) * 4),
        miner.audits_due,
        miner.last_audit,
        None if miner.verdict is None else miner.verdict.value,
        miner.reason,
        int(miner.failing),
        json.dumps({verdict.word: count for verdict, count in miner.counts.items()}),
        *(int(value) if isinstance(value, bool) else value for value in astuple(miner.standing)),
    )


def read_miner(
    row: Any,
    commitment: Callable[[bytes | None], SignedCommitment | None],
    entries: Iterable[Entry] = (),
    credited: Iterable[int] = (),
    barred: Iterable[int] = (),
) -> Miner:
    """The miner of a row that is read by column name.

    Args:
        commitment: finds the commitment of a hash.
    """
    standing = {name: row[name] for name in STANDING_COLUMNS}
    draw = None
    if row["draw_sector"] is not None:
        sector = int.from_bytes(row["draw_sector"], "big")
        draw = Draw(sector, row["draw_block"], row["draw_block_hash"], row["draw_round"])
    return Miner(
        hotkey=row["hotkey"],
        public_key=row["public_key"],
        uid=row["uid"],
        registered_at=row["registered_at"],
        standing=Standing(**{**standing, "wrong_last": bool(standing["wrong_last"])}),
        commitment=commitment(row["commitment"]),
        seen_block=row["seen_block"],
        previous=commitment(row["previous"]),
        previous_seen=row["previous_seen"],
        listing=tuple(entries),
        credited=frozenset(credited),
        barred=frozenset(barred),
        draw=draw,
        audits_due=row["audits_due"],
        last_audit=row["last_audit"],
        verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
        reason=row["reason"],
        failing=bool(row["failing"]),
        counts={Verdict.from_word(word): count for word, count in json.loads(row["counts"]).items()},
    )


def write_entries(entries: Iterable[Entry]) -> bytes:
    return b"".join(u64(index) + root for index, root in entries)


def read_entries(data: bytes) -> list[Entry]:
    return [
        (int.from_bytes(data[at : at + 8], "big"), data[at + 8 : at + _ENTRY])
        for at in range(0, len(data), _ENTRY)
    ]


def write_indices(indices: Iterable[int]) -> bytes:
    return b"".join(u64(index) for index in sorted(indices))


def read_indices(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]


def slot_row(hotkey: str, slot: Slot) -> tuple[Any, ...]:
    """The values of SLOT_COLUMNS."""
    return (
        hotkey,
        u64(slot.sector),
        slot.chunk,
        slot.signed.encode(),
        slot.filler,
        int(slot.accepted),
        slot.flaw,
        min(slot.good_until, _MOST_SECONDS),
    )


def read_slot(row: Any) -> Slot:
    """The slot of a row that is read by column name."""
    return Slot(
        sector=int.from_bytes(row["sector"], "big"),
        chunk=row["chunk"],
        signed=SignedTicket.decode(row["ticket"]),
        filler=row["filler"],
        accepted=bool(row["accepted"]),
        flaw=row["flaw"],
    )


def write_message(signed: SignedCommitment) -> str:
    """A signed commitment as the JSON that carries it on the wire."""
    return CommitmentMessage.of(signed).model_dump_json()


def read_message(text: str, *, genesis: bytes, netuid: int, miner: bytes) -> SignedCommitment:
    """The signed commitment of such JSON."""
    message = CommitmentMessage.model_validate_json(text)
    return message.signed(genesis=genesis, netuid=netuid, miner=miner)
