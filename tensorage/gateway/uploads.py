"""Uploads in files.sqlite: places, tickets, receipts, completion.

Rules. What may be asked again answers the same: a client that was killed anywhere asks again and goes on. A
ticket is only for a place that is kept, and neither avoiding miners nor drawing again and again lets a client
choose: it could bring its own miner bytes that need not be kept, since it can make them anew. Quota and
ticket are one transaction. A serial is on the disk before anything is signed with it, and is never less than
the time in microseconds, so that not even an older copy of the database repeats one.

A ticket cannot be taken back: until it ends, its miner may show it for a chunk whose bytes its client could
make anew. So what a client gives back frees its quota, but a bounded number of times (`GIVEN_UP_TIMES`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence

from .. import seal, shard
from ..chain.address import public_key
from ..errors import ProofError, RequestError
from ..hashchain import Sign, Verify
from ..keyauth import SigningKey
from ..ticket import SignedTicket, Stored, Ticket
from . import rows
from .files import FileRows, add_shard, leaves_of, live_shards, own_file, remove_all, set_removing, stripe_of
from .rows import FileRow, Place, Wanted
from .schema import Issuer

#: An upload without progress for so long is dropped, and so is a ticket without a receipt.
STALLED_SECONDS = 86400
#: Stripes of a file with shards that have not come.
MOST_OPEN_STRIPES = 64
#: An account may draw so many miners in vain, and one more for each shard that it brings.
DRAWS_IN_VAIN = 4096
#: Tickets that an account gave back, and that run on, may be for so many times its quota, and so many bytes.
GIVEN_UP_TIMES = 8
GIVEN_UP_BYTES = 1 << 30
#: A receipt's time may be so many seconds before its ticket or ahead of our clock.
CLOCK_SKEW = 120

#: (those that have a place already, hotkeys that are out, how many more) -> (hotkey, coldkey) of each.
Choose = Callable[[Sequence[Place], Collection[str], int], Sequence[tuple[str, str]]]


class UploadRows(FileRows):
    """Places and tickets.

    Args:
        issuer: whose tickets are issued.
    """

    issuer: Issuer

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
        one drawn; a number for which there is no miner is left out. A miner is avoided from the start only if
        this file had it before and gave it up.

        Args:
            avoid: hotkeys (SS58) of miners that failed.
            serves: whether the miner of a hotkey still takes shards.
            choose: draws miners.

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
            out = _given_up(db, file, stripe, avoid)
            needed = [n for n in range(file.shards) if n not in stored and n not in places]
            if out is not None and needed:
                chosen = choose([*stored.values(), *places.values()], out, len(needed))
                for number, (hotkey, coldkey) in zip(needed, chosen, strict=False):
                    places[number] = Place(number, hotkey, coldkey)
                    db.execute(
                        "INSERT INTO places VALUES (?, ?, ?, ?, ?)", (id, stripe, number, hotkey, coldkey)
                    )
                _count_draws(db, account, len(chosen))
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
            RequestError: "unknown"; "conflict": no such place, or stored otherwise; "forbidden": over quota,
                or too much was given up.
        """
        serial = self.next_serials(len(wanted), now)

        def work(db: sqlite3.Connection) -> list[SignedTicket]:
            nonlocal serial
            file = _uploading(db, id, account, now)
            if leaves_of(db, id, stripe) != leaves:
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
            _check_quota(db, account, now)
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
                    db.execute("UPDATE accounts SET brought = brought + 1 WHERE id = ?", (account,))
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
            remove_all(db, id, now, "issued")
            db.execute(
                "UPDATE files SET state = 'stored', size = ?, stripe_count = ?, spread = ?, reader = ?,"
                " progressed = ? WHERE id = ?",
                (*told, now, id),
            )
            db.execute("DELETE FROM places WHERE file = ?", (id,))
            db.execute("DELETE FROM replaced WHERE file = ?", (id,))
            return own_file(db, id, account)

        return self._write(work)


def _uploading(db: sqlite3.Connection, id: bytes, account: int, now: int) -> FileRow:
    file = own_file(db, id, account)
    if file.state != "uploading":
        raise RequestError("conflict", f"file {id.hex()} takes no shards any more; it is {file.state}")
    if file.expires <= now:
        raise RequestError("conflict", f"file {id.hex()} has expired")
    return file


def _set_leaves(db: sqlite3.Connection, file: FileRow, stripe: int, leaves: int) -> None:
    known = leaves_of(db, file.id, stripe)
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


def _given_up(db: sqlite3.Connection, file: FileRow, stripe: int, avoid: Collection[str]) -> set[str] | None:
    """Miners that are out for a stripe; None when it has given up so many that it gets no others.

    Those that were given up for other stripes of the file are out if they are to be avoided, as long as the
    file has not given up more than two for each shard of a stripe.
    """
    here: set[str] = set()
    elsewhere: set[str] = set()
    for row in db.execute("SELECT DISTINCT stripe, hotkey FROM replaced WHERE file = ?", (file.id,)):
        (here if row["stripe"] == stripe else elsewhere).add(row["hotkey"])
    if len(here) > 2 * file.shards:
        return None
    if len(here | elsewhere) <= 2 * file.shards:
        here |= elsewhere & set(avoid)
    return here


def _count_draws(db: sqlite3.Connection, account: int, count: int) -> None:
    row = db.execute(
        "UPDATE accounts SET drawn = drawn + ? WHERE id = ? RETURNING drawn, brought", (count, account)
    ).fetchone()
    if row["drawn"] > DRAWS_IN_VAIN + 2 * row["brought"]:
        raise RequestError("forbidden", f"{row['drawn'] - row['brought']} places were asked for and not used")


def _check_quota(db: sqlite3.Connection, account: int, now: int) -> None:
    row = db.execute("SELECT used, quota FROM accounts WHERE id = ?", (account,)).fetchone()
    used = row["used"] * seal.LEAF_SIZE
    if used > row["quota"]:
        raise RequestError("forbidden", f"over quota: {used} bytes of shards would be used of {row['quota']}")
    given_up = db.execute(
        "SELECT coalesce(sum(leaves), 0) FROM given_up WHERE account = ? AND day >= ?",
        (account, now // 86400),
    ).fetchone()[0]
    if given_up * seal.LEAF_SIZE > GIVEN_UP_TIMES * row["quota"] + GIVEN_UP_BYTES:
        raise RequestError(
            "forbidden",
            f"over quota: {given_up * seal.LEAF_SIZE} bytes of shards were given up that had longer to run; "
            "wait for their end, and give files a nearer one",
        )


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
