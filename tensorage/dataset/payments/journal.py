"""The buyer's journal of payments, in a table of its own database.

    begun    a claim key was made; nothing was signed that ever left this process
    signed   what pays was signed and may have left: whether money moved is not known
    paid     the chain showed the payment, or nothing but the seller can show it; the seller owes a token
    claimed  the token is saved
    lost     the payment was not made, and never can be

A row is written before the step that it names. Per seller's dataset and version at most one row is open
(begun, signed or paid), whoever else runs: a second payment cannot begin while the first is undecided. Rows
hold the secret half of the claim key, so the database is the owner's alone (0600).
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ...errors import StorageError
from ...sqlite import transaction
from .errors import PaymentUndecided

State = Literal["begun", "signed", "paid", "claimed", "lost"]

#: One migration for the database that the journal is kept in.
MIGRATION = """
CREATE TABLE payments (
    reference   BLOB    PRIMARY KEY CHECK (length(reference) = 32),
    root_owner  TEXT    NOT NULL,      -- of the dataset's log: its first key
    id          TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    network     TEXT    NOT NULL,
    asset       TEXT    NOT NULL,
    amount      TEXT    NOT NULL,      -- smallest units, decimal
    pay_to      TEXT    NOT NULL,
    payer       TEXT    NOT NULL,
    accepted    TEXT    NOT NULL,      -- JSON of the requirement, with the signed offer
    seed        BLOB    NOT NULL CHECK (length(seed) = 32),  -- of the claim key: a secret
    state       TEXT    NOT NULL CHECK (state IN ('begun', 'signed', 'paid', 'claimed', 'lost')),
    signed      TEXT,                  -- JSON of what was signed, for who sends it again
    header      TEXT,                  -- the payment header to show
    place       TEXT,                  -- where it stands on its chain, for people
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX payments_open ON payments (root_owner, id, version)
    WHERE state IN ('begun', 'signed', 'paid');
"""

_COLUMNS = (
    "reference, root_owner, id, version, network, asset, amount, pay_to, payer, accepted, seed, state, "
    "signed, header, place, created, updated"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One payment. Times are unix seconds, `amount` is in the smallest unit."""

    reference: bytes
    root_owner: str
    id: str
    version: int
    network: str
    asset: str
    amount: int
    pay_to: str
    payer: str
    accepted: dict[str, Any] = field(repr=False)
    seed: bytes = field(repr=False)
    state: State
    signed: dict[str, Any] | None = field(repr=False)
    header: str | None = field(repr=False)
    place: str | None
    created: int
    updated: int


class Journal:
    """The table `payments` of an open database, whose connection has `isolation_level=None`.

    Methods block for a short time, and raise StorageError when the database cannot be read or written.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def open(self, root_owner: str, id: str, version: int) -> Row | None:
        """The payment for this version that is not claimed or lost."""
        return self._one(
            "root_owner = ? AND id = ? AND version = ? AND state IN ('begun', 'signed', 'paid')",
            (root_owner, id, version),
        )

    def get(self, reference: bytes) -> Row | None:
        """The payment with this reference."""
        return self._one("reference = ?", (reference,))

    def all(self) -> list[Row]:
        """Every payment, oldest first."""
        try:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM payments ORDER BY created, reference").fetchall()  # noqa: S608
        except sqlite3.Error as error:
            raise StorageError(f"the payments cannot be read: {error}") from error
        return [_row(row) for row in rows]

    def begin(self, row: Row) -> None:
        """Record that a payment begins.

        Raises:
            PaymentUndecided: another one for the same version is open.
        """
        values = (
            row.reference,
            row.root_owner,
            row.id,
            row.version,
            row.network,
            row.asset,
            str(row.amount),
            row.pay_to,
            row.payer,
            json.dumps(row.accepted),
            row.seed,
            "begun",
            row.created,
            row.created,
        )
        try:
            with transaction(self._db):
                self._db.execute(
                    "INSERT INTO payments (reference, root_owner, id, version, network, asset, amount, "
                    "pay_to, payer, accepted, seed, state, created, updated) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
        except sqlite3.IntegrityError as error:
            raise PaymentUndecided(
                f"another payment for {row.id} version {row.version} is under way",
                remedy="Let the other command finish, then run this one again",
            ) from error
        except sqlite3.Error as error:
            raise _unwritten(error) from error

    def signed(self, reference: bytes, signed: dict[str, Any], now: int) -> None:
        """Record what was signed, before it leaves.

        Raises:
            PaymentUndecided: another process has closed the payment meanwhile; what was signed must not
            be sent.
        """
        self._move(reference, ("begun",), "signed", now, signed=json.dumps(signed))

    def paid(self, reference: bytes, header: str, place: str, now: int) -> None:
        """Record the header that claims the token."""
        self._move(reference, ("signed", "paid"), "paid", now, header=header, place=place)

    def claimed(self, reference: bytes, now: int) -> None:
        """Record that the token is saved; call it after saving."""
        self._move(reference, ("paid", "claimed"), "claimed", now)

    def lost(self, reference: bytes, now: int) -> None:
        """Record that the payment was not made and never can be."""
        self._move(reference, ("begun", "signed", "paid", "lost"), "lost", now)

    def _move(self, reference: bytes, before: tuple[State, ...], after: State, now: int, **more: str) -> None:
        changes = "".join(f", {name} = ?" for name in more)
        marks = ", ".join("?" * len(before))
        query = (
            f"UPDATE payments SET state = ?, updated = ?{changes} WHERE reference = ? AND state IN ({marks})"  # noqa: S608
        )
        try:
            with transaction(self._db):
                cursor = self._db.execute(query, (after, now, *more.values(), reference, *before))
                if cursor.rowcount != 1:
                    raise PaymentUndecided(
                        f"payment {reference.hex()[:16]} was changed by another command meanwhile",
                        remedy="Run this one again",
                    )
        except sqlite3.Error as error:
            raise _unwritten(error) from error

    def _one(self, where: str, values: tuple[Any, ...]) -> Row | None:
        try:
            row = self._db.execute(f"SELECT {_COLUMNS} FROM payments WHERE {where}", values).fetchone()  # noqa: S608
        except sqlite3.Error as error:
            raise StorageError(f"the payments cannot be read: {error}") from error
        return None if row is None else _row(row)


def _row(row: tuple[Any, ...]) -> Row:
    values = list(row)
    values[6] = int(values[6])
    values[9] = json.loads(values[9])
    values[11] = cast(State, values[11])
    values[12] = None if values[12] is None else json.loads(values[12])
    return Row(*values)


def _unwritten(error: sqlite3.Error) -> StorageError:
    return StorageError(
        f"the payment cannot be recorded, so nothing is sent: {error}", remedy="Make room, and run this again"
    )
