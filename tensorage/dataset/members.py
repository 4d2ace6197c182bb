"""Who may fetch what: tokens, kept by their hash, and what was fetched with them.

    token = "tensorage-member-" || 64 hex digits; kept is H of the whole string

1. A token is for one dataset and for versions 1 to `max_version`.
2. It is shown once, when it is made. Nobody can read it out of the store; one that was paid for can be made
   again from its payment (sales.py).
3. Revoking is for good, and told apart from never having been a member.

Labels may come from whoever asked to join: they are shown, never trusted, and no way to name a single member
when several have them.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..encoding import sha256
from ..errors import TensorageError, UsageError
from .home import Home

TOKEN_PREFIX = "tensorage-member-"  # noqa: S105 - what every token begins with
_TOKEN = re.compile(TOKEN_PREFIX + "[0-9a-f]{64}", re.ASCII)
_HASH_PREFIX = re.compile("[0-9a-f]{8,64}", re.ASCII)
MAX_LABEL = 64  # characters
MAX_VERSION = 2**53 - 1
#: Ranges that are remembered of each member; the totals go on.
KEPT_DOWNLOADS = 1000

DeniedKind = Literal["not_a_member", "version_not_entitled", "token_expired", "token_revoked"]

_COLUMNS = "number, hash, id, label, max_version, created, expires, revoked, paid, requests, sent"


class Denied(TensorageError):
    """A token that does not open what was asked for. `kind` is the stable word for machines."""

    http_status = 403

    def __init__(self, kind: DeniedKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody with a token.

    Attributes:
        number: of the row; for the store only.
        hash: of the token, 32 bytes.
        id: the dataset. `max_version`: the highest version that the token opens; it opens all before too.
        created, expires, revoked: seconds since 1970; None: never.
        paid: smallest units of the asset, None for who did not pay.
        requests, sent: how many downloads there were, and how many bytes were sent in them.
    """

    number: int
    hash: bytes
    id: str
    label: str
    max_version: int
    created: int
    expires: int | None
    revoked: int | None
    paid: int | None
    requests: int
    sent: int

    @property
    def worker(self) -> str:
        """A name that tells members apart and opens nothing: w- and 16 hex digits of the token's hash."""
        return f"w-{self.hash.hex()[:16]}"


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes `start` to `stop` (exclusive) of a version that a member was sent by `time`."""

    member: bytes  # hash of the token
    label: str
    version: int
    start: int
    stop: int
    time: int


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes `start` to `stop` (exclusive) of a version that a member was sent, before it is noted."""

    member: Member
    version: int
    start: int
    stop: int
    time: int


def token_hash(raw: str) -> bytes:
    """The hash by which a token is kept."""
    return sha256(raw.encode())


def clean_label(text: str) -> str:
    """A label as it is kept: one line of at most 64 characters that print."""
    shown = "".join(letter if unicodedata.category(letter)[0] not in "CZ" else " " for letter in text)
    return " ".join(shown.split())[:MAX_LABEL].rstrip()


def insert_member(
    db: sqlite3.Connection,
    raw: str,
    id: str,
    label: str,
    max_version: int,
    *,
    now: int,
    expires: int | None,
    paid: int | None,
) -> int:
    """Add a member within a transaction; returns its number."""
    if not 1 <= max_version <= MAX_VERSION:
        raise UsageError(f"a token cannot open version {max_version}", remedy="Versions begin at 1")
    if expires is not None and expires <= now:
        raise UsageError(f"a token that expires at {expires} has expired", remedy="Name a time to come")
    known = db.execute("SELECT 1 FROM datasets WHERE id = ?", (id,)).fetchone()
    if known is None:
        raise UsageError(f'dataset "{id}" not found')
    row = db.execute(
        "INSERT INTO members (hash, id, label, max_version, created, expires, paid) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            token_hash(raw),
            id,
            clean_label(label),
            max_version,
            now,
            expires,
            None if paid is None else str(paid),
        ),
    )
    return int(row.lastrowid or 0)


class MemberRows(Home):
    """Members and their downloads."""

    def mint(
        self, id: str, *, label: str, max_version: int, expires: int | None = None, paid: int | None = None
    ) -> str:
        """Make a member of a dataset; returns the token, which nothing can show again.

        Args:
            label: who it is for, as far as anybody says; cut to one line of 64 characters.
            max_version: the highest version that it opens.
            expires: seconds since 1970; None for never.
            paid: smallest units of the asset.

        Raises:
            UsageError: no such dataset, or the version or the time makes no sense.
        """
        raw = TOKEN_PREFIX + self._rng(32).hex()
        now = self._clock()
        self._write(
            lambda db: insert_member(db, raw, id, label, max_version, now=now, expires=expires, paid=paid)
        )
        return raw

    def check_token(self, raw: str, id: str, version: int | None, now: int) -> Member:
        """The member with that token, if it opens `version` of a dataset; None asks for membership only.

        Raises:
            Denied: not_a_member, token_revoked, token_expired or version_not_entitled.
        """
        member = None
        if _TOKEN.fullmatch(raw):
            query = f"SELECT {_COLUMNS} FROM members WHERE hash = ? AND id = ?"  # noqa: S608
            row = self._read(lambda db: db.execute(query, (token_hash(raw), id)).fetchone())
            member = _member(row) if row else None
        if member is None:
            raise Denied("not_a_member", f"this token is of no member of {id}")
        if member.revoked is not None:
            raise Denied("token_revoked", f"this token for {id} was revoked")
        if member.expires is not None and member.expires <= now:
            raise Denied("token_expired", f"this token for {id} has expired")
        if version is not None and not 1 <= version <= member.max_version:
            raise Denied(
                "version_not_entitled",
                f"this token opens versions 1 to {member.max_version} of {id}, not {version}",
            )
        return member

    def members(self, id: str) -> list[Member]:
        """All members of a dataset, revoked and expired ones too, in the order in which they came."""
        query = f"SELECT {_COLUMNS} FROM members WHERE id = ? ORDER BY number"  # noqa: S608
        return self._read(lambda db: [_member(row) for row in db.execute(query, (id,))])

    def count_members(self, id: str, now: int) -> int:
        """How many members of a dataset have a token that is good."""
        query = (
            "SELECT count(*) FROM members WHERE id = ? AND revoked IS NULL "
            "AND (expires IS NULL OR expires > ?)"
        )
        return self._read(lambda db: int(db.execute(query, (id, now)).fetchone()[0]))

    def revoke(self, id: str, which: str) -> Member:
        """Refuse a member from now on.

        Args:
            which: its label, or at least the first 8 hex digits of its token's hash (`w-` in front or not).

        Raises:
            UsageError: no member is named so, or several are.
        """
        now = self._clock()

        def work(db: sqlite3.Connection) -> Member:
            member = _find(db, id, which)
            db.execute(
                "UPDATE members SET revoked = ? WHERE number = ? AND revoked IS NULL", (now, member.number)
            )
            return _by_number(db, member.number)

        return self._write(work)

    def grant(self, id: str, which: str, max_version: int) -> Member:
        """Set the highest version that a member's token opens.

        Raises:
            UsageError: as `revoke`; or the version makes no sense.
        """
        if not 1 <= max_version <= MAX_VERSION:
            raise UsageError(f"a token cannot open version {max_version}", remedy="Versions begin at 1")

        def work(db: sqlite3.Connection) -> Member:
            member = _find(db, id, which)
            db.execute("UPDATE members SET max_version = ? WHERE number = ?", (max_version, member.number))
            return _by_number(db, member.number)

        return self._write(work)

    def log_download(self, member: Member, version: int, start: int, end: int, now: int) -> None:
        """Note that a member was sent bytes `start` to `end` (exclusive) of a version.

        A range that goes on where the member's last one ended is counted to that one. The newest 1,000 are
        kept of each member, so that nobody fills the disk by asking.
        """
        self.log_downloads([Sent(member, version, start, end, now)])

    def log_downloads(self, sent: Sequence[Sent]) -> None:
        """Note what members were sent, as `log_download` does, all of it or nothing."""
        of_members: dict[int, list[Sent]] = {}
        for each in sent:
            if not 0 <= each.start <= each.stop:
                raise ValueError(f"bytes {each.start} to {each.stop} are no range")
            of_members.setdefault(each.member.number, []).append(each)

        def work(db: sqlite3.Connection) -> None:
            for member, ranges in of_members.items():
                _note(db, member, ranges)

        self._write(work)

    def downloads(self, id: str) -> list[Download]:
        """What the members of a dataset were sent, oldest first, as far as it is kept."""
        query = (
            "SELECT members.hash, label, version, start, stop, time FROM downloads "
            "JOIN members ON members.number = downloads.member WHERE id = ? ORDER BY downloads.number"
        )
        return self._read(lambda db: [Download(*row) for row in db.execute(query, (id,))])


def _member(row: tuple[Any, ...]) -> Member:
    values = list(row)
    values[8] = None if values[8] is None else int(values[8])
    return Member(*values)


def _note(db: sqlite3.Connection, member: int, ranges: Sequence[Sent]) -> None:
    """Note what one member was sent, oldest first, within a transaction."""
    db.execute(
        "UPDATE members SET requests = requests + ?, sent = sent + ? WHERE number = ?",
        (len(ranges), sum(each.stop - each.start for each in ranges), member),
    )
    last = db.execute(
        "SELECT number, version, stop FROM downloads WHERE member = ? ORDER BY number DESC LIMIT 1", (member,)
    ).fetchone()
    for each in ranges:
        if last and last[1:] == (each.version, each.start):
            number = last[0]
            db.execute(
                "UPDATE downloads SET stop = ?, time = ? WHERE number = ?", (each.stop, each.time, number)
            )
        else:
            number = db.execute(
                "INSERT INTO downloads (member, version, start, stop, time) VALUES (?, ?, ?, ?, ?)",
                (member, each.version, each.start, each.stop, each.time),
            ).lastrowid
        last = number, each.version, each.stop
    db.execute(
        "DELETE FROM downloads WHERE member = :member AND number <= (SELECT number FROM downloads "
        "WHERE member = :member ORDER BY number DESC LIMIT 1 OFFSET :kept)",
        {"member": member, "kept": KEPT_DOWNLOADS},
    )


def _by_number(db: sqlite3.Connection, number: int) -> Member:
    return _member(db.execute(f"SELECT {_COLUMNS} FROM members WHERE number = ?", (number,)).fetchone())  # noqa: S608


def _find(db: sqlite3.Connection, id: str, which: str) -> Member:
    prefix = which.removeprefix("w-")
    query = f"SELECT {_COLUMNS} FROM members WHERE id = ? ORDER BY number"  # noqa: S608
    found = [
        member
        for member in map(_member, db.execute(query, (id,)))
        if member.label == which or (_HASH_PREFIX.fullmatch(prefix) and member.hash.hex().startswith(prefix))
    ]
    if not found:
        raise UsageError(
            f'dataset "{id}" has no member {which[:80]!r}',
            remedy="List them with: dataset members; name a label or 8 digits of a hash",
        )
    if len(found) > 1:
        raise UsageError(
            f"{which[:80]!r} means {len(found)} members: {', '.join(m.hash.hex()[:16] for m in found[:8])}",
            remedy="Name one by its hash",
        )
    return found[0]
