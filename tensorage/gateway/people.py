"""Accounts in files.sqlite: who may store, and how much. A key that is revoked is refused from then on."""

from __future__ import annotations

import sqlite3

from .. import seal
from ..errors import UsageError
from . import rows
from .rows import Account, Kind
from .schema import Database

_COLUMNS = "id, name, kind, public_key, quota, used * :leaf AS used, created, revoked"
_LEAF = {"leaf": seal.LEAF_SIZE}


class AccountRows(Database):
    """The accounts."""

    def add_account(self, name: str, kind: Kind, public_key: bytes, quota: int, now: int) -> Account:
        """A new account.

        Args:
            quota: bytes of shards.

        Raises:
            UsageError: there is one with this name or this key.
        """

        def work(db: sqlite3.Connection) -> Account:
            for column, value in (("name", name), ("public_key", public_key)):
                taken = db.execute(
                    f"SELECT name FROM accounts WHERE {column} = ? AND revoked IS NULL",  # noqa: S608
                    (value,),
                ).fetchone()
                if taken:
                    raise UsageError(
                        f"there is an account {taken['name']!r} already",
                        remedy="Choose another name" if column == "name" else "Revoke that one first",
                    )
            made = db.execute(
                "INSERT INTO accounts (name, kind, public_key, quota, created) VALUES (?, ?, ?, ?, ?)",
                (name, kind, public_key, quota, now),
            )
            found = _account(db, "id = :id", id=made.lastrowid)
            assert found is not None
            return found

        return self._write(work)

    def revoke(self, name: str, now: int) -> Account:
        """Take an account's leave to do anything, at once. Its files stay until they expire.

        Raises:
            UsageError: there is none with this name.
        """

        def work(db: sqlite3.Connection) -> Account:
            found = _account(db, "name = :name AND revoked IS NULL", name=name)
            if found is None:
                raise UsageError(f"there is no account {name!r}", remedy="See: tensorage gateway keys list")
            db.execute("UPDATE accounts SET revoked = ? WHERE id = ?", (now, found.id))
            return found

        return self._write(work)

    def accounts(self) -> list[Account]:
        """All accounts, revoked ones too, in the order in which they were made."""
        return self._read(
            lambda db: [
                rows.read(Account, row)
                for row in db.execute(f"SELECT {_COLUMNS} FROM accounts ORDER BY id", _LEAF)  # noqa: S608
            ]
        )

    def account_of(self, kind: Kind, public_key: bytes) -> Account | None:
        """The account of whoever signed with that key, unless it was revoked."""
        return self._read(
            lambda db: _account(
                db, "kind = :kind AND public_key = :key AND revoked IS NULL", kind=kind, key=public_key
            )
        )


def _account(db: sqlite3.Connection, where: str, **values: object) -> Account | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM accounts WHERE {where}",  # noqa: S608 - `where` is written here
        {**_LEAF, **values},
    ).fetchone()
    return rows.read(Account, row) if row else None
