"""Links to the artifacts of versions in the storage subnet.

A link is a secret: it holds the file's key, so whoever has it can read the artifact, and it cannot be taken
back. It is shown to members who may have that version, and to nobody else.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, field

from .home import Home


@dataclass(frozen=True, slots=True)
class SubnetLink:
    """Where the artifact of a version is.

    Attributes:
        file_hash: SHA-256 of the artifact.
        file_id: the 16 bytes by which the subnet knows the file.
        link: the bytes of a link file.
        stored, expires: seconds since 1970.
    """

    id: str
    seq: int
    file_hash: bytes
    file_id: bytes
    link: bytes = field(repr=False)
    stored: int
    expires: int


class LinkRows(Home):
    """Links of versions."""

    def keep_link(self, link: SubnetLink) -> None:
        """Record where a version is, in the place of where it was.

        Raises:
            StorageError: there is no such version, or as always.
        """
        self._write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO subnet_links (id, seq, file_hash, file_id, link, stored, expires) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                astuple(link),
            )
        )

    def link(self, id: str, seq: int) -> SubnetLink | None:
        """Where a version is, or was; None where it was never put."""

        def work(db: sqlite3.Connection) -> SubnetLink | None:
            row = db.execute(
                "SELECT id, seq, file_hash, file_id, link, stored, expires FROM subnet_links "
                "WHERE id = ? AND seq = ?",
                (id, seq),
            ).fetchone()
            return SubnetLink(*row) if row else None

        return self._read(work)
