"""Files in files.sqlite, from their creation to their end: places, tickets, receipts, trash.

Rules. What may be asked again answers the same: a client that was killed anywhere asks again and goes on. A
ticket is only for a place that is kept, so a client does not choose its miners. Quota and ticket are one
transaction. A serial is on the disk before anything is signed with it, and is never less than the time in
microseconds, so that not even an older copy of the database repeats one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence

from .. import seal, shard
from ..chain.address import public_key, ss58
from ..errors import ProofError, RequestError
from ..hashchain import Sign, Verify
from ..keyauth import SigningKey
from ..ticket import SignedTicket, Stored, Ticket
from . import rows
from .rows import FileRow, Place, ShardRow, StripeRow, Wanted
from .schema import Database, Issuer

TRASH_SECONDS = 7 * 86400
#: An upload without progress for so long is dropped, and so is a ticket without a receipt.
STALLED_SECONDS = 86400
#: Files of an account that are not complete, and stripes of a file with shards that have not come.
MOST_UPLOADS = 256
MOST_OPEN_STRIPES = 64
#: A receipt's time may be so many seconds before its ticket or ahead of our clock.
CLOCK_SKEW = 120

_FILE = rows.columns(FileRow)
_SHARD = rows.columns(ShardRow)

#: (those that have a place already, hotkeys that are out, how many more) -> (hotkey, coldkey) of each.
Choose = Callable[[Sequence[Place], Collection[str], int], Sequence[tuple[str, str]]]


class UploadRows(Database):
    """Files and their tickets.

    Args:
        issuer: whose tickets are issued.
    """

    issuer: Issuer

    # Files

    def create_file(
        self,
        account: int,
        access: bytes,
        data_shards: int,
        parity_shards: int,
        expires: int,
        now: int,
    ) -> FileRow:
        """A new file; the same again for the same access key.

        Raises:
            RequestError: "conflict"; the file is another's, was made in another way, or too many are open.
        """
        id = rows.file_id(access)

        def work(db: sqlite3.Connection) -> FileRow:
            known = _file(db, id)
            if known is not None:
                asked = (account, access, data_shards, parity_shards)
                if (known.account, known.access, known.data_shards, known.parity_shards) != asked:
                    raise RequestError("conflict", f"file {id.hex()} was made in another way")
                if known.state == "gone":
                    raise RequestError("conflict", f"file {id.hex()} is gone; begin with a new key")
                return known
            open_files = db.execute(
                "SELECT count(*) FROM files WHERE account = ? AND state = 'uploading'", (account,)
            ).fetchone()[0]
            if open_files >= MOST_UPLOADS:
                raise RequestError(
                    "conflict", f"{open_files} uploads are not complete; complete or remove some of them"
                )
            db.execute(
                "INSERT INTO files (id, account, access, data_shards, parity_shards, created, progressed,"
                " expires, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'uploading')",
                (id, account, access, data_shards, parity_shards, now, now, expires),
            )
            made = _file(db, id)
            assert made is not None
            return made

        return self._write(work)

    def file(self, id: bytes) -> FileRow | None:
        """A file by its id; None when there is none, or it is gone."""
        found = self._read(lambda db: _file(db, id))
        return None if found is None or found.state == "gone" else found

    def file_of_access(self, access: bytes) -> FileRow | None:
        """The file whose access key has that public key."""
        found = self.file(rows.file_id(access))
        return found if found is not None and found.access == access else None

    def files(self, account: int, start: int, limit: int) -> tuple[list[FileRow], int | None]:
        """An account's files from number `start` on, and where the next page starts, None after the last."""
        found = self._read(
            lambda db: [
                rows.read(FileRow, row)
                for row in db.execute(
                    f"SELECT {_FILE} FROM files WHERE account = ? AND seq >= ? AND state <> 'gone'"  # noqa: S608
                    " ORDER BY seq LIMIT ?",
                    (account, min(start, 2**63 - 1), limit + 1),
                )
            ]
        )
        return found[:limit], found[limit].seq if len(found) > limit else None

    def stripes(self, file: FileRow, start: int, limit: int) -> tuple[list[StripeRow], int | None]:
        """Up to `limit` stripes from number `start` on, and where the next page starts, if there is one."""

        def work(db: sqlite3.Connection) -> tuple[list[StripeRow], int | None]:
            numbers = db.execute(
                "SELECT number FROM stripes WHERE file = ? AND number >= ? ORDER BY number LIMIT ?",
                (file.id, min(start, 2**63 - 1), limit + 1),
            ).fetchall()
            found = [stripe_of(db, file, row["number"]) for row in numbers[:limit]]
            return found, numbers[limit]["number"] if len(numbers) > limit else None

        return self._read(work)

    def stripe(self, id: bytes, number: int) -> StripeRow | None:
        """One stripe of a file."""

        def work(db: sqlite3.Connection) -> StripeRow | None:
            file = _file(db, id)
            known = _leaves(db, id, number) is not None
            return stripe_of(db, file, number) if file is not None and known else None

        return self._read(work)

    def shard(self, ticket: bytes) -> ShardRow | None:
        """The shard of a ticket, by the ticket's hash."""
        return self._read(lambda db: shard_of(db, ticket))

    # Places

    def place(
        self,
        id: bytes,
        account: int,
        stripe: int,
        leaves: int,
        avoid: Collection[str],
        serves: Callable[[str], bool],
        choose: Choose,
        now: int,
    ) -> list[Place]:
        """The places of those shards of a stripe that are not stored yet, by number. They are kept.

        A place whose miner is to be avoided, or serves no more, is given up, its ticket with it, and another
        one chosen; a number for which there is no miner is left out. What a client may have avoided in one
        stripe is bounded, so that it cannot go on until it likes its miners.

        Raises:
            RequestError: "unknown", "conflict".
        """

        def work(db: sqlite3.Connection) -> list[Place]:
            file = _uploading(db, id, account, now)
            _set_leaves(db, file, stripe, leaves)
            shards = live_shards(db, id, stripe)
            stored = {s.number: Place(s.number, s.hotkey, s.coldkey) for s in shards if s.state == "stored"}
            places = _places(db, id, stripe)
            for place in list(places.values()):
                if place.hotkey in avoid or not serves(place.hotkey):
                    del places[place.number]
                    _give_up(db, id, stripe, place, now)
            out = {
                row["hotkey"]
                for row in db.execute(
                    "SELECT hotkey FROM replaced WHERE file = ? AND stripe = ?", (id, stripe)
                )
            }
            needed = [n for n in range(file.shards) if n not in stored and n not in places]
            if len(out) <= 2 * file.shards and needed:
                taken = [*stored.values(), *places.values()]
                chosen = choose(taken, out | set(avoid), len(needed))
                for number, (hotkey, coldkey) in zip(needed, chosen, strict=False):
                    places[number] = Place(number, hotkey, coldkey)
                    db.execute(
                        "INSERT INTO places VALUES (?, ?, ?, ?, ?)", (id, stripe, number, hotkey, coldkey)
                    )
            return [places[number] for number in sorted(places)]

        return self._write(work)

    # Tickets

    def issue(
        self,
        id: bytes,
        account: int,
        stripe: int,
        leaves: int,
        wanted: Sequence[Wanted],
        sign: Sign,
        now: int,
    ) -> list[SignedTicket]:
        """Tickets for shards whose places are kept; for what was asked before, the same tickets.

        Args:
            sign: signs with the validator's hotkey.

        Raises:
            RequestError: "unknown"; "conflict": no such place, or stored otherwise; "forbidden": over quota.
        """
        serial = self.next_serials(len(wanted), now)

        def work(db: sqlite3.Connection) -> list[SignedTicket]:
            nonlocal serial
            file = _uploading(db, id, account, now)
            if _leaves(db, id, stripe) != leaves:
                raise RequestError(
                    "conflict", f"stripe {stripe} has not {leaves} leaves; ask for places first"
                )
            live = {s.number: s for s in live_shards(db, id, stripe)}
            places = _places(db, id, stripe)
            tickets = []
            for item in wanted:
                old = live.get(item.number)
                if old is not None and (old.hotkey, old.root) == (item.hotkey, item.root):
                    tickets.append(old.decoded())
                    continue
                if old is not None and old.state == "stored":
                    raise RequestError("conflict", f"shard {item.number} of stripe {stripe} is stored")
                place = places.get(item.number)
                if place is None or place.hotkey != item.hotkey:
                    raise RequestError(
                        "conflict", f"shard {item.number} of stripe {stripe} has no place at {item.hotkey}"
                    )
                if old is not None:
                    set_removing(db, old.ticket, now)
                signed = self._signed(file, item, leaves, serial, sign)
                serial += 1
                add_shard(db, file.id, stripe, item.number, place.coldkey, signed, now)
                tickets.append(signed)
            _check_quota(db, account)
            db.execute("UPDATE files SET progressed = ? WHERE id = ?", (now, id))
            return tickets

        return self._write(work)

    def next_serials(self, count: int, now: int) -> int:
        """The first of `count` serials that are nobody's yet; they are taken for good."""

        def work(db: sqlite3.Connection) -> int:
            last = db.execute("SELECT last FROM serials").fetchone()["last"]
            first = max(int(last) + 1, now * 1_000_000)
            db.execute("UPDATE serials SET last = ?", (first + count - 1,))
            return first

        return self._write(work)

    def _signed(self, file: FileRow, item: Wanted, leaves: int, serial: int, sign: Sign) -> SignedTicket:
        shard.check_leaves(leaves)
        new = Ticket(
            genesis=self.issuer.genesis,
            netuid=self.issuer.netuid,
            validator=self.issuer.validator,
            client=file.access,
            miner=public_key(item.hotkey),
            shard_root=item.root,
            leaves=leaves,
            expires=file.expires,
            serial=serial,
        )
        return SignedTicket(new, sign(new.hash))

    # Receipts

    def record_stored(
        self, id: bytes, account: int, stripe: int, receipts: Sequence[Stored], verify: Verify, now: int
    ) -> list[int]:
        """Take the receipts of miners; the numbers of the stripe's shards that are stored now.

        A receipt for a ticket that was given up meanwhile is passed over.

        Raises:
            RequestError: "unknown". ProofError: not our ticket, not the miner's signature, or not in time.
        """
        for receipt in receipts:
            row = self.shard(receipt.ticket_hash)
            if row is None or (row.file, row.stripe) != (id, stripe):
                raise ProofError(f"ticket {receipt.ticket_hash.hex()} is not of stripe {stripe} of this file")
            when = receipt.unix_ms // 1000
            if not row.issued - CLOCK_SKEW <= when <= min(now + CLOCK_SKEW, row.expires):
                raise ProofError(f"the receipt for ticket {receipt.ticket_hash.hex()} is of another time")
            receipt.check(row.decoded().ticket.miner, verify)

        def work(db: sqlite3.Connection) -> list[int]:
            file = own_file(db, id, account)
            for receipt in receipts:
                changed = db.execute(
                    "UPDATE shards SET state = 'stored', stored_ms = ?, receipt = ?"
                    " WHERE ticket = ? AND state = 'issued'",
                    (receipt.unix_ms, receipt.signature, receipt.ticket_hash),
                )
                if changed.rowcount:
                    db.execute("UPDATE files SET progressed = ? WHERE id = ?", (now, id))
                    db.execute(
                        "DELETE FROM places WHERE file = ? AND stripe = ? AND number ="
                        " (SELECT number FROM shards WHERE ticket = ?)",
                        (id, stripe, receipt.ticket_hash),
                    )
            found = stripe_of(db, file, stripe)
            return sorted({s.number for s in found.shards if s.state == "stored"})

        return self._write(work)

    def complete(
        self,
        id: bytes,
        account: int,
        size: int,
        stripes: int,
        spread: bytes,
        reader: bytes,
        now: int,
    ) -> FileRow:
        """Take a file as whole: from now on it is audited and repaired.

        With `spread` the validator undoes the outer layer of shards and makes it anew, which repair needs;
        with `reader`, the seed of the access key, it fetches as any client does, which is how it samples
        miners. Neither reads the file: beneath the outer layer is AES-256-GCM under a key that is derived
        from the file's key apart from these two (HKDF), and the file's key never leaves the client. Nor can
        the validator pass off other bytes: the client checks the tag of every segment.

        Raises:
            RequestError: "unknown"; "conflict": a stripe has less than K stored shards, or the file was
                completed in another way; "malformed": the reader's key is not the file's, or the size is not
                that of its stripes.
        """

        def work(db: sqlite3.Connection) -> FileRow:
            file = own_file(db, id, account)
            told = (size, stripes, spread, reader)
            if file.state != "uploading":
                if (file.size, file.stripe_count, file.spread, file.reader) != told:
                    raise RequestError("conflict", f"file {id.hex()} was completed in another way")
                return file
            if SigningKey(reader).public_key != file.access:
                raise RequestError("malformed", "reader is not the seed of the file's access key")
            _check_whole(db, file, stripes, size)
            db.execute(
                "UPDATE files SET state = 'stored', size = ?, stripe_count = ?, spread = ?, reader = ?,"
                " progressed = ? WHERE id = ?",
                (*told, now, id),
            )
            _remove_all(db, id, now, "issued")
            db.execute("DELETE FROM places WHERE file = ?", (id,))
            db.execute("DELETE FROM replaced WHERE file = ?", (id,))
            return own_file(db, id, account)

        return self._write(work)

    # Trash

    def remove_file(self, id: bytes, account: int, now: int) -> FileRow:
        """Put a file into the trash for seven days; one that is not complete goes at once.

        Raises:
            RequestError: "unknown".
        """

        def work(db: sqlite3.Connection) -> FileRow:
            file = own_file(db, id, account)
            if file.state == "uploading":
                drop_file(db, id, now)
            elif file.state == "stored":
                until = min(now + TRASH_SECONDS, file.expires)
                db.execute("UPDATE files SET state = 'trash', until = ? WHERE id = ?", (until, id))
                _remove_all(db, id, now, "issued")
                db.execute(
                    "UPDATE shards SET tell_at = 0, tells = 0 WHERE file = ? AND state = 'stored'", (id,)
                )
            found = _file(db, id)
            assert found is not None
            return found

        return self._write(work)

    def restore_file(self, id: bytes, account: int, now: int) -> FileRow:
        """Take a file out of the trash.

        Raises:
            RequestError: "unknown".
        """

        def work(db: sqlite3.Connection) -> FileRow:
            file = own_file(db, id, account)
            if file.state == "trash":
                if file.until is not None and file.until <= now:
                    raise RequestError("unknown", f"file {id.hex()} was in the trash for too long")
                db.execute("UPDATE files SET state = 'stored', until = NULL WHERE id = ?", (id,))
                db.execute(
                    "UPDATE shards SET tell_at = 0, tells = 0 WHERE file = ? AND state = 'stored'", (id,)
                )
                db.execute("UPDATE stripes SET sick = 1 WHERE file = ?", (id,))
            return own_file(db, id, account)

        return self._write(work)


def own_file(db: sqlite3.Connection, id: bytes, account: int) -> FileRow:
    """A file of that account.

    Raises:
        RequestError: "unknown"; there is none, or it is another's, which is told alike.
    """
    found = _file(db, id)
    if found is None or found.account != account or found.state == "gone":
        raise RequestError("unknown", f"there is no file {id.hex()}")
    return found


def stripe_of(db: sqlite3.Connection, file: FileRow, number: int) -> StripeRow:
    """A stripe with its stored and lost shards."""
    found = db.execute(
        f"SELECT {_SHARD} FROM shards WHERE file = ? AND stripe = ? AND state IN ('stored', 'lost')"  # noqa: S608
        " ORDER BY number, serial",
        (file.id, number),
    )
    return StripeRow(
        file, number, _leaves(db, file.id, number) or 0, tuple(rows.read(ShardRow, row) for row in found)
    )


def shard_of(db: sqlite3.Connection, ticket: bytes) -> ShardRow | None:
    """The shard of a ticket."""
    row = db.execute(f"SELECT {_SHARD} FROM shards WHERE ticket = ?", (ticket,)).fetchone()  # noqa: S608
    return rows.read(ShardRow, row) if row else None


def live_shards(db: sqlite3.Connection, id: bytes, stripe: int) -> list[ShardRow]:
    """What is issued or stored of a stripe."""
    found = db.execute(
        f"SELECT {_SHARD} FROM shards WHERE file = ? AND stripe = ?"  # noqa: S608
        " AND state IN ('issued', 'stored') ORDER BY number, serial",
        (id, stripe),
    )
    return [rows.read(ShardRow, row) for row in found]


def add_shard(
    db: sqlite3.Connection,
    id: bytes,
    stripe: int,
    number: int,
    coldkey: str,
    signed: SignedTicket,
    now: int,
) -> None:
    """Write a ticket down as issued."""
    ticket = signed.ticket
    values: Mapping[str, object] = {
        "ticket": ticket.hash,
        "file": id,
        "stripe": stripe,
        "number": number,
        "hotkey": ss58(ticket.miner),
        "coldkey": coldkey,
        "root": ticket.shard_root,
        "leaves": ticket.leaves,
        "serial": ticket.serial,
        "signed": signed.encode(),
        "issued": now,
        "expires": ticket.expires,
        "state": "issued",
    }
    marks = ", ".join(f":{name}" for name in values)
    db.execute(f"INSERT INTO shards ({', '.join(values)}) VALUES ({marks})", values)  # noqa: S608


def set_removing(db: sqlite3.Connection, ticket: bytes, now: int) -> None:
    """Give a ticket up: its miner is to be told."""
    db.execute(
        "UPDATE shards SET state = 'removing', tell_at = ?, tells = 0"
        " WHERE ticket = ? AND state IN ('issued', 'stored', 'lost')",
        (now, ticket),
    )


def drop_file(db: sqlite3.Connection, id: bytes, now: int) -> None:
    """A file is gone; its miners are to be told, unless they said already that they have it in the trash."""
    db.execute("UPDATE files SET state = 'gone', until = NULL WHERE id = ?", (id,))
    db.execute("UPDATE shards SET state = 'gone', tell_at = ? WHERE file = ? AND trashed = 1", (now, id))
    _remove_all(db, id, now, "issued", "stored", "lost")
    db.execute("DELETE FROM places WHERE file = ?", (id,))


def _remove_all(db: sqlite3.Connection, id: bytes, now: int, *states: str) -> None:
    for state in states:
        db.execute(
            "UPDATE shards SET state = 'removing', tell_at = ?, tells = 0 WHERE file = ? AND state = ?",
            (now, id, state),
        )


def _file(db: sqlite3.Connection, id: bytes) -> FileRow | None:
    row = db.execute(f"SELECT {_FILE} FROM files WHERE id = ?", (id,)).fetchone()  # noqa: S608
    return rows.read(FileRow, row) if row else None


def _uploading(db: sqlite3.Connection, id: bytes, account: int, now: int) -> FileRow:
    file = own_file(db, id, account)
    if file.state != "uploading":
        raise RequestError("conflict", f"file {id.hex()} takes no shards any more; it is {file.state}")
    if file.expires <= now:
        raise RequestError("conflict", f"file {id.hex()} has expired")
    return file


def _leaves(db: sqlite3.Connection, id: bytes, stripe: int) -> int | None:
    row = db.execute("SELECT leaves FROM stripes WHERE file = ? AND number = ?", (id, stripe)).fetchone()
    return int(row["leaves"]) if row else None


def _set_leaves(db: sqlite3.Connection, file: FileRow, stripe: int, leaves: int) -> None:
    known = _leaves(db, file.id, stripe)
    if known is None:
        opened = db.execute(
            "SELECT count(DISTINCT stripe) FROM places WHERE file = ?", (file.id,)
        ).fetchone()[0]
        if opened >= MOST_OPEN_STRIPES:
            raise RequestError("conflict", f"{opened} stripes of the file wait for shards; store those first")
        db.execute("INSERT INTO stripes (file, number, leaves) VALUES (?, ?, ?)", (file.id, stripe, leaves))
    elif known != leaves:
        if live_shards(db, file.id, stripe):
            raise RequestError("conflict", f"stripe {stripe} has shards of {known} leaves, not {leaves}")
        db.execute("UPDATE stripes SET leaves = ? WHERE file = ? AND number = ?", (leaves, file.id, stripe))


def _places(db: sqlite3.Connection, id: bytes, stripe: int) -> dict[int, Place]:
    found = db.execute(
        "SELECT number, hotkey, coldkey FROM places WHERE file = ? AND stripe = ?", (id, stripe)
    )
    return {row["number"]: rows.read(Place, row) for row in found}


def _give_up(db: sqlite3.Connection, id: bytes, stripe: int, place: Place, now: int) -> None:
    db.execute("DELETE FROM places WHERE file = ? AND stripe = ? AND number = ?", (id, stripe, place.number))
    db.execute("INSERT OR IGNORE INTO replaced VALUES (?, ?, ?)", (id, stripe, place.hotkey))
    for old in live_shards(db, id, stripe):
        if old.number == place.number and old.state == "issued":
            set_removing(db, old.ticket, now)


def _check_quota(db: sqlite3.Connection, account: int) -> None:
    row = db.execute("SELECT used, quota FROM accounts WHERE id = ?", (account,)).fetchone()
    used = row["used"] * seal.LEAF_SIZE
    if used > row["quota"]:
        raise RequestError("forbidden", f"over quota: {used} bytes of shards would be used of {row['quota']}")


def _check_whole(db: sqlite3.Connection, file: FileRow, stripes: int, size: int) -> None:
    known = [
        (row["number"], row["leaves"])
        for row in db.execute("SELECT number, leaves FROM stripes WHERE file = ? ORDER BY number", (file.id,))
    ]
    if [number for number, _ in known] != list(range(stripes)):
        raise RequestError("conflict", f"{len(known)} stripes have places, not each of {stripes}")
    room = sum(leaves for _, leaves in known) * seal.LEAF_SIZE * file.data_shards
    if size > room:
        raise RequestError("malformed", f"{size} bytes do not fit into stripes of {room}")
    for number, _ in known:
        stored = {s.number for s in stripe_of(db, file, number).shards if s.state == "stored"}
        if len(stored) < file.data_shards:
            raise RequestError(
                "conflict",
                f"stripe {number} has {len(stored)} stored shards, and needs {file.data_shards}",
            )
        if len(stored) < file.shards:
            db.execute("UPDATE stripes SET sick = 1 WHERE file = ? AND number = ?", (file.id, number))
