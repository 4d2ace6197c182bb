"""What clients ask of a gateway: the routes, from the wire to the database and back.

Who may what: an account does everything with its own files; whoever signs with a file's access key, which
the holder of a link has, looks it up and reports shards, and nothing else. Accounts are looked up for each
request, so that one that was revoked is out at once. All of SQLite happens in threads, never on the event
loop, and no more wait for it than are served soon.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from .. import SPEC_VERSION
from ..encoding import from_hex
from ..errors import RequestError
from ..hashchain import Sign, Verify
from ..transport.axon import Access, Axon, Call, Client, Handler, Reply
from ..transport.file_messages import (
    FILE_ID_SIZE,
    FILES_PAGE,
    STRIPES_PAGE,
    Accepted,
    AccountMessage,
    CompleteFile,
    CreateFile,
    FileCreated,
    FileMessage,
    FilesPage,
    FileState,
    FileStateName,
    GatewayInfo,
    PlacementMessage,
    PlacementRequest,
    ReportMessage,
    ShardPlace,
    StoredBatch,
    StoredNumbers,
    StripeMessage,
    TicketsMessage,
    TicketsRequest,
)
from ..transport.file_messages import Place as PlaceMessage
from ..transport.limits import Rate, TokenBuckets
from ..transport.refusals import RateLimited
from . import placement
from .directory import Directory
from .placement import Candidate
from .rows import Account, FileRow, Place, StripeRow, Wanted
from .store import FileStore, Lookup

MAX_EXPIRY_SECONDS = 400 * 86400
LEAST_EXPIRY_SECONDS = 60
MOST_STRIPES = 1 << 20
MOST_WAITING = 64
#: Of one client. A report makes a check due, and nothing before the last check is a minute old.
REPORTS = Rate(per_second=2, burst=512)
REPORT_SECONDS = 60
#: A batch of 256 receipts, or as many roots.
_MAX_BODY = 256 * 1024
_SEED_SIZE = 32

T = TypeVar("T")


class Desk:
    """Serves clients.

    Args:
        lookup: the same database over a connection of its own, for who may ask: that is found out in the
            thread that checks all signatures.
        sign: signs tickets with the validator's hotkey.
        verify: checks miners' signatures.
        removed: told when miners are to be told something.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        store: FileStore,
        lookup: Lookup,
        directory: Directory,
        sign: Sign,
        verify: Verify,
        *,
        removed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._directory = directory
        self._sign = sign
        self._verify = verify
        self._removed = removed
        self._clock = clock
        self._thread = ThreadPoolExecutor(2, thread_name_prefix="gateway")
        self._waiting = 0
        self._reports = TokenBuckets(REPORTS)

    def attach(self, axon: Axon) -> None:
        """Serve the routes."""
        axon.route("GET", "/v1/gateway", self._info, access=Access.ANYONE)
        stripe = "/v1/files/{id}/stripes/{stripe}"
        owners: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/account", self._account),
            ("POST", "/v1/files", self._create),
            ("GET", "/v1/files", self._files),
            ("POST", f"{stripe}/placement", self._place),
            ("POST", f"{stripe}/tickets", self._tickets),
            ("POST", f"{stripe}/stored", self._stored),
            ("POST", "/v1/files/{id}/complete", self._complete),
            ("DELETE", "/v1/files/{id}", self._remove),
            ("POST", "/v1/files/{id}/restore", self._restore),
        ]
        for method, path, handler in owners:
            size = _MAX_BODY if method == "POST" else 0
            axon.route(method, path, handler, access=Access.CLIENT, knows=self._knows_account, max_body=size)
        axon.route(
            "GET", "/v1/files/{id}", self._file, access=Access.CLIENT, knows=self._knows_reader, max_body=0
        )
        axon.route(
            "POST", "/v1/files/{id}/report", self._report, access=Access.CLIENT, knows=self._knows_reader
        )

    def close(self) -> None:
        """Let the threads end, after what they are doing."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # Who

    def _knows_account(self, client: Client, path: Mapping[str, str]) -> bool:
        return self._lookup.account_of(client.kind, client.public_key) is not None

    def _knows_reader(self, client: Client, path: Mapping[str, str]) -> bool:
        if client.kind == "key":
            file = self._lookup.file_of_access(client.public_key)
            if file is not None and path.get("id") == file.id.hex():
                return True
        return self._knows_account(client, path)

    def _owner(self, client: Client) -> Account:
        account = self._store.account_of(client.kind, client.public_key)
        if account is None:
            raise RequestError("forbidden", f"{client.kind} {client.name} has no account here")
        return account

    def _readable(self, client: Client, id: bytes) -> FileRow:
        file = self._store.file(id)
        if file is not None:
            if client.kind == "key" and client.public_key == file.access:
                return file
            if self._owner(client).id == file.account:
                return file
        raise RequestError("unknown", f"there is no file {id.hex()}")

    # What is to be known

    async def _info(self, call: Call) -> Reply:
        issuer = self._store.issuer
        candidates = self._candidates()
        coldkeys = len({candidate.coldkey for candidate in candidates})
        networks = len({candidate.network for candidate in candidates})
        data, parity = placement.bearable(coldkeys)
        return GatewayInfo(
            data_shards=data,
            parity_shards=parity,
            hotkey=issuer.hotkey,
            genesis=issuer.genesis,
            netuid=issuer.netuid,
            spec_version=SPEC_VERSION,
            coldkeys=coldkeys,
            networks=networks,
            max_expiry_seconds=MAX_EXPIRY_SECONDS,
            note=placement.note(coldkeys, networks),
        )

    async def _account(self, call: Call) -> Reply:
        account = await self._run(self._owner, call.signer)
        return AccountMessage(name=account.name, quota=account.quota, used=max(0, account.used))

    # Uploads

    async def _create(self, call: Call) -> Reply:
        asked = call.json(CreateFile)
        now = self._now()
        if not now + LEAST_EXPIRY_SECONDS <= asked.expires <= now + MAX_EXPIRY_SECONDS:
            raise RequestError(
                "malformed",
                f"expires must be {LEAST_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS} seconds ahead of now, {now}",
            )
        most = len({candidate.coldkey for candidate in self._candidates()})

        def work() -> FileRow:
            account = self._owner(call.signer)
            return self._store.create_file(
                account.id, asked.access, asked.data_shards, asked.parity_shards, asked.expires, now, most
            )

        file = await self._run(work)
        return FileCreated(
            id=file.id,
            data_shards=file.data_shards,
            parity_shards=file.parity_shards,
            state=_state_name(file),
        )

    async def _place(self, call: Call) -> Reply:
        id, stripe, asked = _id(call), _stripe(call), call.json(PlacementRequest)
        seed = secrets.token_bytes(_SEED_SIZE)
        self._candidates()

        def choose(taken: Sequence[Place], out: Collection[str], wanted: int) -> Sequence[tuple[str, str]]:
            return self._directory.choose(taken, out, wanted, seed)

        def work() -> list[Place]:
            return self._store.place(
                id,
                self._owner(call.signer).id,
                stripe,
                asked.leaves,
                frozenset(asked.avoid),
                self._directory.serves,
                choose,
                self._now(),
            )

        found = []
        for place in await self._run(work):
            endpoint = self._directory.endpoint(place.hotkey)
            if endpoint is not None:
                found.append(
                    PlaceMessage(number=place.number, hotkey=place.hotkey, ip=endpoint.ip, port=endpoint.port)
                )
        return PlacementMessage(places=found)

    async def _tickets(self, call: Call) -> Reply:
        id, stripe, asked = _id(call), _stripe(call), call.json(TicketsRequest)
        wanted = [Wanted(item.number, item.miner, item.root) for item in asked.shards]

        def work() -> TicketsMessage:
            account = self._owner(call.signer).id
            return TicketsMessage.of(
                self._store.issue(id, account, stripe, asked.leaves, wanted, self._sign, self._now())
            )

        return await self._run(work)

    async def _stored(self, call: Call) -> Reply:
        id, stripe = _id(call), _stripe(call)
        receipts = [message.stored() for message in call.json(StoredBatch).receipts]

        def work() -> list[int]:
            account = self._owner(call.signer).id
            return self._store.record_stored(id, account, stripe, receipts, self._verify, self._now())

        return StoredNumbers(stored=await self._run(work))

    async def _complete(self, call: Call) -> Reply:
        id, asked = _id(call), call.json(CompleteFile)
        if not 1 <= asked.stripes <= MOST_STRIPES:
            raise RequestError("malformed", f"a file has 1 to {MOST_STRIPES} stripes")

        def work() -> FileRow:
            return self._store.complete(
                id,
                self._owner(call.signer).id,
                asked.size,
                asked.stripes,
                asked.spread,
                asked.reader,
                self._now(),
            )

        state = _state(await self._run(work))
        self._removed()
        return state

    # Files

    async def _file(self, call: Call) -> Reply:
        id = _id(call)
        start = call.number("from", 0)
        limit = call.number("limit", STRIPES_PAGE, low=1, high=STRIPES_PAGE)

        def work() -> tuple[FileRow, list[StripeRow], int | None]:
            file = self._readable(call.signer, id)
            return (file, *self._store.stripes(file, start, limit))

        file, stripes, following = await self._run(work)
        return FileMessage(
            data_shards=file.data_shards,
            parity_shards=file.parity_shards,
            id=file.id,
            state=_state_name(file),
            expires=file.expires,
            size=file.size or 0,
            stripe_count=file.stripe_count or 0,
            stripes=[self._stripe_message(stripe) for stripe in stripes],
            next=following,
        )

    def _stripe_message(self, stripe: StripeRow) -> StripeMessage:
        stored = {shard.number: shard for shard in stripe.shards if shard.state == "stored"}
        places = []
        for shard in stored.values():
            endpoint = self._directory.endpoint(shard.hotkey)
            places.append(
                ShardPlace(
                    number=shard.number,
                    ticket=shard.signed,
                    hotkey=shard.hotkey,
                    ip=endpoint.ip if endpoint else None,
                    port=endpoint.port if endpoint else None,
                    health=shard.health,
                    checked=shard.checked,
                )
            )
        return StripeMessage(number=stripe.number, leaves=stripe.leaves, shards=places)

    async def _files(self, call: Call) -> Reply:
        start = call.number("from", 0)
        limit = call.number("limit", FILES_PAGE, low=1, high=FILES_PAGE)

        def work() -> tuple[list[FileRow], int | None]:
            return self._store.files(self._owner(call.signer).id, start, limit)

        files, following = await self._run(work)
        return FilesPage(files=[_state(file) for file in files], next=following)

    async def _remove(self, call: Call) -> Reply:
        id = _id(call)

        def work() -> FileRow:
            return self._store.remove_file(id, self._owner(call.signer).id, self._now())

        state = _state(await self._run(work), gone_at=self._now())
        self._removed()
        return state

    async def _restore(self, call: Call) -> Reply:
        id = _id(call)

        def work() -> FileRow:
            return self._store.restore_file(id, self._owner(call.signer).id, self._now())

        state = _state(await self._run(work))
        self._removed()
        return state

    async def _report(self, call: Call) -> Reply:
        id, asked = _id(call), call.json(ReportMessage)
        wait = self._reports.spend(call.signer.name, time.monotonic())
        if wait:
            raise RateLimited("many reports; the shards will be checked", wait)

        def work() -> None:
            file = self._readable(call.signer, id)
            shard = self._store.shard(asked.ticket)
            if shard is None or shard.file != file.id:
                raise RequestError("unknown", f"ticket {asked.ticket.hex()} is not of file {id.hex()}")
            if shard.checked is None or shard.checked <= self._now() - REPORT_SECONDS:
                self._store.report(asked.ticket)

        await self._run(work)
        return Accepted()

    # Inside

    def _candidates(self) -> list[Candidate]:
        if not self._directory.ready:
            raise RequestError("unready", "miners are being asked for room; ask again in a moment")
        return self._directory.candidates()

    def _now(self) -> int:
        return int(self._clock())

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        if self._waiting >= MOST_WAITING:
            raise RateLimited("many ask at once; ask again soon", 1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments))
        finally:
            self._waiting -= 1


def _id(call: Call) -> bytes:
    try:
        return from_hex(call.path["id"], FILE_ID_SIZE, "the id of a file")
    except ValueError as error:
        raise RequestError("malformed", str(error)) from error


def _stripe(call: Call) -> int:
    return call.number("stripe", high=MOST_STRIPES - 1)


def _state_name(file: FileRow) -> FileStateName:
    return "trash" if file.state == "gone" else file.state


def _state(file: FileRow, gone_at: int | None = None) -> FileState:
    until = file.until if file.state == "trash" else file.expires
    return FileState(id=file.id, state=_state_name(file), until=gone_at if file.state == "gone" else until)
