"""What an owner does with a file that is stored: look at it, remove it, bring it back, share it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..chain.types import Endpoint
from ..errors import TensorageError, UsageError
from ..transport.dendrite import Dendrite, Peer, Refused
from ..transport.file_messages import STRIPES_PAGE, FileMessage
from .catalog import Catalog, FileRow
from .gateway import DEADLINE, Access, Gateway, GatewayError, find, may_dial_private
from .home import Home, sync_directory
from .known import Known, known_file, manifest_of
from .reach import Reach, reaching


def listed(row: FileRow) -> dict[str, Any]:
    """A file of the catalog, for JSON; not its key."""
    return {
        "name": row.name,
        "id": row.id.hex(),
        "kind": row.kind,
        "state": row.state,
        "size": row.size,
        "data_shards": row.data_shards,
        "parity_shards": row.parity_shards,
        "created": row.created,
        "expires": row.expires,
        "until": row.until,
    }


async def pages(reach: Reach, known: Known) -> list[FileMessage]:
    """All that the gateway says of a file.

    Raises:
        GatewayError: it is away, or refuses.
    """
    calls, peer = reach.gateway.calls, reach.gateway.peer
    found: list[FileMessage] = []
    following: int | None = 0
    while following is not None:
        start = following
        message = await reach.gateway.ask(
            lambda start=start: calls.file(  # type: ignore[misc]
                peer, known.manifest.id, start, STRIPES_PAGE, deadline=DEADLINE
            ),
            patience=5.0,
        )
        found.append(message)
        following = message.next
    return found


async def info(catalog: Catalog | None, access: Access, what: str) -> dict[str, Any]:
    """A file, where its shards lie, and how they are as far as the validator knows, for JSON.

    Raises:
        GatewayError: the gateway is away, or refuses.
    """
    known = known_file(catalog, what)
    manifest = known.manifest
    async with reaching(known, access, catalog) as reach:
        messages = await pages(reach, known)
    return {
        "name": manifest.name,
        "id": manifest.id.hex(),
        "kind": manifest.kind,
        "state": messages[0].state,
        "size": manifest.size,
        "sha256": manifest.sha256.hex(),
        "data_shards": manifest.data_shards,
        "parity_shards": manifest.parity_shards,
        "created": manifest.created,
        "expires": messages[0].expires,
        "gateway": {"hotkey": manifest.gateway.hotkey, "url": f"http://{reach.gateway.endpoint}"},
        "stripes": [
            {
                "number": stripe.number,
                "leaves": stripe.leaves,
                "shards": [
                    {
                        "number": shard.number,
                        "ticket": shard.signed().ticket.hash.hex(),
                        "hotkey": shard.hotkey,
                        "address": str(shard.endpoint) if shard.endpoint else None,
                        "health": shard.health,
                        "checked": shard.checked,
                    }
                    for shard in stripe.shards
                ],
            }
            for message in messages
            for stripe in message.stripes
        ],
    }


async def remove(
    home: Home, catalog: Catalog, access: Access, what: str, *, undo: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Put a file into the trash, drop an upload that was not finished, or bring a file back.

    Raises:
        UsageError: there is no such file.
        BusyError: it is being put right now.
        GatewayError: the gateway is away, or refuses.
    """
    with home.alone(_wanted(catalog, what, undo=undo).name):
        row = _wanted(catalog, what, undo=undo)
        return await _remove(catalog, access, row, undo=undo, tell=tell)


async def _remove(
    catalog: Catalog, access: Access, row: FileRow, *, undo: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    signer = access.signer()
    private = may_dial_private(access, row.gateway_ip)
    async with Dendrite(signer, allow_private=private) as dendrite:
        gateway = await _gateway_of(row, access, dendrite)
        calls, peer = gateway.calls, gateway.peer
        if undo:
            if catalog.named(row.name, "stored") is not None:
                raise UsageError(
                    f"another file is called {row.name!r} by now",
                    remedy=f"Remove it first: tensorage rm {row.name}",
                )
            if row.state == "trash":
                await gateway.ask(lambda: calls.restore(peer, row.id, deadline=DEADLINE))
            catalog.move(row.id, "stored")
            return {"name": row.name, "id": row.id.hex(), "state": "stored", "until": None}
        until = await _end(gateway, row)
        if row.state == "uploading":
            catalog.forget(row.id)
            tell(f"the unfinished upload of {row.name!r} is dropped")
            return {"name": row.name, "id": row.id.hex(), "state": "dropped", "until": None}
        catalog.move(row.id, "trash", until)
        await _sweep(catalog, gateway, tell)
    return {"name": row.name, "id": row.id.hex(), "state": "trash", "until": until}


def _wanted(catalog: Catalog, what: str, *, undo: bool) -> FileRow:
    by_id = catalog.file(bytes.fromhex(what)) if len(what) == 32 and _is_hex(what) else None
    states = ("trash", "removing") if undo else ("stored", "removing", "uploading")
    for state in states:
        row = catalog.named(what, state)  # type: ignore[arg-type]
        if row is not None:
            return row
    if by_id is not None and by_id.state in states:
        return by_id
    if not undo and catalog.named(what, "trash") is not None:
        raise UsageError(
            f"{what!r} is removed already", remedy=f"Bring it back with: tensorage rm --undo {what}"
        )
    raise UsageError(
        f"there is no {'removed ' if undo else ''}file {what!r}",
        remedy="See what there is with: tensorage ls --all",
    )


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


async def _gateway_of(row: FileRow, access: Access, dendrite: Dendrite) -> Gateway:
    """The gateway that a file was put through, where it is now."""
    peer = Peer(row.gateway_hotkey, Endpoint(row.gateway_ip, row.gateway_port))
    if access.url is not None:
        peer, _ = await find(access, dendrite)
    if peer.hotkey != row.gateway_hotkey or (access.api_key and access.api_key.validator != peer.hotkey):
        raise UsageError(
            f"{row.name!r} was put through the gateway of {row.gateway_hotkey}",
            remedy="Name that one, and your key for it",
        )
    return Gateway(dendrite, peer, None)


async def _end(gateway: Gateway, row: FileRow) -> int:
    """Have the gateway remove a file; until when it can be brought back."""
    try:
        state = await gateway.ask(lambda: gateway.calls.remove(gateway.peer, row.id, deadline=DEADLINE))
    except GatewayError as error:
        if isinstance(error.__cause__, Refused) and error.__cause__.status == 404:
            return 0  # it is gone already
        raise
    return state.until or 0


async def _sweep(catalog: Catalog, gateway: Gateway, tell: Callable[[str], None]) -> None:
    """Remove at the gateway what it could not be told of before."""
    for row in catalog.files("removing"):
        if row.gateway_hotkey != gateway.peer.hotkey:
            continue
        try:
            catalog.move(row.id, "trash", await _end(gateway, row))
        except TensorageError as error:
            tell(f"{row.id.hex()} is not removed yet: {error}")


async def share(catalog: Catalog, access: Access, what: str, tell: Callable[[str], None]) -> bytes:
    """The link file of a file, with what the gateway knows of where its shards are, if it answers.

    Raises:
        UsageError: there is no such file.
    """
    known = known_file(catalog, what)
    if known.row is None:
        raise UsageError(f"{what!r} is a link already", remedy="Copy it")
    try:
        async with reaching(known, access, catalog) as reach:
            for stripe in range(0, len(known.manifest.stripes), STRIPES_PAGE):
                await reach.places.refresh(stripe)
    except TensorageError as error:
        tell(f"shards are named where they were last: {error}")
    return manifest_of(catalog, known.row).link(known.key)


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read: whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)  # mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(path.absolute().parent)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", remedy="Name another place with -o"
        ) from error
