"""What is asked of a validator's gateway: a method for each route, answers typed and bounded.

Rules as in `miner_calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ProofError
from ..ticket import SignedTicket, Stored
from .calls import Calls, next_page
from .dendrite import Addressed, Malformed, answered
from .file_messages import (
    FILES_PAGE,
    MOST_SHARDS,
    STRIPES_PAGE,
    Accepted,
    AccountMessage,
    CompleteFile,
    CreateFile,
    FileCreated,
    FileMessage,
    FilesPage,
    FileState,
    GatewayInfo,
    PlacementMessage,
    PlacementRequest,
    ReportMessage,
    ShardWanted,
    StoredBatch,
    StoredMessage,
    StoredNumbers,
    TicketsMessage,
    TicketsRequest,
)

# The most bytes of JSON that one entry of a listing takes.
_FILE_BYTES = 160
_PLACE_BYTES = 256
_SHARD_BYTES = 896
_TICKET_BYTES = 512


class GatewayCalls(Calls):
    """Asks a validator's gateway, with the key of an account or the access key of a file."""

    async def info(self, peer: Addressed, *, deadline: float | None = None) -> GatewayInfo:
        """Whose gateway it is; not signed, so `peer` may have any hotkey."""
        response = await self._dendrite.request(peer, "GET", "/v1/gateway", deadline=deadline, signed=False)
        return answered(GatewayInfo, response)

    async def account(self, peer: Addressed, *, deadline: float | None = None) -> AccountMessage:
        """Our account."""
        return await self.ask(AccountMessage, peer, "GET", "/v1/account", deadline)

    async def create_file(
        self, peer: Addressed, request: CreateFile, *, deadline: float | None = None
    ) -> FileCreated:
        """Begin a file, or find it as it was begun."""
        return await self.ask(FileCreated, peer, "POST", "/v1/files", deadline, body=request)

    async def placement(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        leaves: int,
        avoid: Iterable[str] = (),
        *,
        deadline: float | None = None,
    ) -> PlacementMessage:
        """Where the shards of a stripe that are not stored yet are to be brought.

        Args:
            avoid: SS58 hotkeys that failed.
        """
        return await self.ask(
            PlacementMessage,
            peer,
            "POST",
            _stripe(file_id, stripe, "placement"),
            deadline,
            body=PlacementRequest(leaves=leaves, avoid=list(avoid)),
            max_bytes=1024 + MOST_SHARDS * _PLACE_BYTES,
        )

    async def tickets(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        leaves: int,
        shards: Sequence[ShardWanted],
        *,
        deadline: float | None = None,
    ) -> list[SignedTicket]:
        """A ticket for each of `shards`, in their order; signatures are not checked here."""
        message = await self.ask(
            TicketsMessage,
            peer,
            "POST",
            _stripe(file_id, stripe, "tickets"),
            deadline,
            body=TicketsRequest(leaves=leaves, shards=list(shards)),
            max_bytes=1024 + MOST_SHARDS * _TICKET_BYTES,
        )
        try:
            tickets = message.signed()
        except ProofError as error:
            raise Malformed(f"the answer holds no ticket: {error}") from error
        asked = [(leaves, wanted.root) for wanted in shards]
        if [(signed.ticket.leaves, signed.ticket.shard_root) for signed in tickets] != asked:
            raise Malformed(f"{len(tickets)} tickets, which are not those that were asked for")
        return tickets

    async def stored(
        self,
        peer: Addressed,
        file_id: bytes,
        stripe: int,
        receipts: Iterable[Stored],
        *,
        deadline: float | None = None,
    ) -> StoredNumbers:
        """Hand in miners' receipts; which shards of the stripe are stored by now."""
        return await self.ask(
            StoredNumbers,
            peer,
            "POST",
            _stripe(file_id, stripe, "stored"),
            deadline,
            body=StoredBatch(receipts=[StoredMessage.of(receipt) for receipt in receipts]),
        )

    async def complete(
        self, peer: Addressed, file_id: bytes, request: CompleteFile, *, deadline: float | None = None
    ) -> FileState:
        """Say that all stripes are stored."""
        return await self._state(peer, "POST", file_id, "/complete", deadline, request)

    async def file(
        self,
        peer: Addressed,
        file_id: bytes,
        start: int = 0,
        limit: int = STRIPES_PAGE,
        *,
        deadline: float | None = None,
    ) -> FileMessage:
        """A file, with a page of its stripes from number `start` on."""
        message = await self.ask(
            FileMessage,
            peer,
            "GET",
            f"/v1/files/{file_id.hex()}",
            deadline,
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * MOST_SHARDS * _SHARD_BYTES,
        )
        if message.id != file_id:
            raise Malformed(f"file {message.id.hex()}, not {file_id.hex()}")
        numbers = [stripe.number for stripe in message.stripes]
        if len(numbers) > limit or any(number < start for number in numbers):
            raise Malformed(f"asked for {limit} stripes from {start} on, got others")
        next_page(message.next, start, len(numbers))
        return message

    async def files(
        self, peer: Addressed, start: int = 0, limit: int = FILES_PAGE, *, deadline: float | None = None
    ) -> FilesPage:
        """One page of the account's files."""
        page = await self.ask(
            FilesPage,
            peer,
            "GET",
            "/v1/files",
            deadline,
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * _FILE_BYTES,
        )
        if len(page.files) > limit:
            raise Malformed(f"asked for {limit} files, got {len(page.files)}")
        next_page(page.next, start, len(page.files))
        return page

    async def remove(self, peer: Addressed, file_id: bytes, *, deadline: float | None = None) -> FileState:
        """Put a file into the trash."""
        return await self._state(peer, "DELETE", file_id, "", deadline)

    async def restore(self, peer: Addressed, file_id: bytes, *, deadline: float | None = None) -> FileState:
        """Take a file out of the trash."""
        return await self._state(peer, "POST", file_id, "/restore", deadline)

    async def report(
        self,
        peer: Addressed,
        file_id: bytes,
        ticket_hash: bytes,
        reason: str,
        *,
        deadline: float | None = None,
    ) -> None:
        """Tell of a shard that was not to be had, or was wrong; the validator sees for itself."""
        report = ReportMessage(ticket=ticket_hash, reason=reason[:200])
        await self.ask(Accepted, peer, "POST", f"/v1/files/{file_id.hex()}/report", deadline, body=report)

    async def _state(
        self,
        peer: Addressed,
        method: str,
        file_id: bytes,
        action: str,
        deadline: float | None,
        body: CompleteFile | None = None,
    ) -> FileState:
        state = await self.ask(
            FileState,
            peer,
            method,
            f"/v1/files/{file_id.hex()}{action}",
            deadline,
            body=body or b"",
        )
        if state.id != file_id:
            raise Malformed(f"the state of file {state.id.hex()}, not of {file_id.hex()}")
        return state


def _stripe(file_id: bytes, stripe: int, what: str) -> str:
    return f"/v1/files/{file_id.hex()}/stripes/{stripe}/{what}"
