"""put, from names to outcome: which upload it is, new or gone on with, and what becomes of the file before.

One process at a time puts a name. An upload that broke off is gone on with, with the same key, as long as the
source is the same; `replace` gives up one whose source has changed, and begins anew with another key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..chain.types import Endpoint
from ..coding.keys import FILE_KEY_SIZE, FileKeys
from ..coding.manifest import check_name
from ..errors import ProofError, TensorageError, UsageError
from ..transport.dendrite import Dendrite, Peer, Refused
from ..transport.file_calls import MinerCalls
from ..transport.file_messages import CreateFile
from .catalog import Catalog, FileRow
from .gateway import DEADLINE, Access, Gateway, GatewayError, find, may_dial_private
from .home import Home
from .meter import Meter
from .sources import Source, open_source
from .upload import Outcome, SourceChanged, Upload, check_fits

#: Connections to one miner.
PER_PEER = 4


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be put, and how.

    Attributes:
        path: `-` for stdin.
        code: K and M; the gateway's advice where None.
        seconds: from now until it expires.
        least: shards of a stripe without which it does not count as stored; K where None.
    """

    path: Path
    name: str
    code: tuple[int, int] | None
    seconds: int
    replace: bool
    least: int | None


def name_of(path: Path, name: str | None) -> str:
    """What to call what is at `path`.

    Raises:
        UsageError: no name was given where one is needed, or it may not be one.
    """
    if name is None:
        if str(path) == "-":
            raise UsageError("what comes on stdin needs a name", remedy="Give it one with --name")
        name = path.resolve().name if path.name in ("", "..") else path.name
    try:
        check_name(name)
    except ProofError as error:
        raise UsageError(
            error.message,
            remedy='Choose another with --name: no control characters, no part empty, "." or ".."',
        ) from error
    return name


class Put:
    """One `put`.

    Args:
        tell: takes lines for the user.
    """

    def __init__(
        self,
        home: Home,
        catalog: Catalog,
        access: Access,
        request: Request,
        console: Console,
        tell: Callable[[str], None],
        *,
        quiet: bool = False,
    ) -> None:
        self._home = home
        self._catalog = catalog
        self._access = access
        self._request = request
        self._console = console
        self._tell = tell
        self._quiet = quiet

    async def run(self) -> dict[str, Any]:
        """Put it; what came of it, for JSON."""
        request = self._request
        with self._home.alone(request.name):
            if self._catalog.named(request.name, "stored") is not None and not request.replace:
                raise UsageError(
                    f"a file {request.name!r} is stored already",
                    remedy="Choose another --name, or replace it with --replace",
                )
            begun = self._catalog.named(request.name, "uploading")
            private = may_dial_private(self._access, begun.gateway_ip if begun else None)
            signer = self._access.signer()
            async with Dendrite(signer, allow_private=private, per_peer=PER_PEER) as dendrite:
                return await self._put(dendrite, begun)

    async def _put(self, dendrite: Dendrite, begun: FileRow | None) -> dict[str, Any]:
        with open_source(self._request.path) as source:
            if begun is not None:
                gateway = await self._same_gateway(dendrite, begun)
                begun = await self._still_there(gateway, begun)
            if begun is not None:
                try:
                    return await self._upload(source, begun, gateway, dendrite, resumed=True)
                except SourceChanged as changed:
                    if not self._request.replace:
                        raise
                    await self._give_up(gateway, begun)
                    if not source.again:
                        raise SourceChanged(
                            changed.message, remedy="The unfinished upload was dropped: pipe it in once more"
                        ) from changed
            else:
                gateway, row = await self._new(dendrite, source)
                return await self._upload(source, row, gateway, dendrite, resumed=False)
        with open_source(self._request.path) as source:  # from the front again, with another key
            gateway, row = await self._new(dendrite, source)
            return await self._upload(source, row, gateway, dendrite, resumed=False)

    async def _same_gateway(self, dendrite: Dendrite, begun: FileRow) -> Gateway:
        peer = Peer(begun.gateway_hotkey, Endpoint(begun.gateway_ip, begun.gateway_port))
        key = self._access.api_key
        if self._access.url is not None:
            peer, _ = await find(self._access, dendrite)
        if peer.hotkey != begun.gateway_hotkey or (key is not None and key.validator != peer.hotkey):
            raise UsageError(
                f"the upload of {begun.name!r} was begun with the gateway of {begun.gateway_hotkey}",
                remedy="Name that one, or drop the upload with: tensorage rm " + begun.name,
            )
        return Gateway(dendrite, peer, None)

    async def _still_there(self, gateway: Gateway, begun: FileRow) -> FileRow | None:
        """The upload that was begun, unless the gateway has dropped it meanwhile."""
        try:
            state = await gateway.ask(
                lambda: gateway.calls.file(gateway.peer, begun.id, 0, 1, deadline=DEADLINE)
            )
        except GatewayError as error:
            if not isinstance(error.__cause__, Refused) or error.__cause__.status != 404:
                raise
            state = None
        if state is not None and state.state != "trash" and begun.expires > time.time():
            self._check_code(begun)
            return begun
        self._tell(f"the unfinished upload of {begun.name!r} has ended at the gateway; it begins anew")
        self._catalog.forget(begun.id)
        return None

    def _check_code(self, begun: FileRow) -> None:
        code = (begun.data_shards, begun.parity_shards)
        if self._request.code not in (None, code):
            raise UsageError(
                f"the upload of {begun.name!r} was begun with {code[0]} data and {code[1]} parity shards",
                remedy="Go on with these, or drop it with: tensorage rm " + begun.name,
            )

    async def _give_up(self, gateway: Gateway, row: FileRow) -> None:
        await gateway.ask(lambda: gateway.calls.remove(gateway.peer, row.id, deadline=DEADLINE))
        self._catalog.forget(row.id)

    async def _new(self, dendrite: Dendrite, source: Source) -> tuple[Gateway, FileRow]:
        """A file with a fresh key, known to the gateway and the catalog."""
        peer, info = await find(self._access, dendrite)
        if info.note:
            self._tell(info.note)
        data_shards, parity_shards = self._request.code or (info.data_shards, info.parity_shards)
        check_fits(data_shards, parity_shards)
        if not parity_shards and self._request.code is None:
            raise GatewayError(
                "only one owner's miners have room: a file would be gone with them",
                remedy="Wait until more miners have room, or say that you want it: --data-shards 1 "
                "--parity-shards 0",
            )
        now = int(time.time())
        seconds = min(self._request.seconds, info.max_expiry_seconds)
        if seconds < self._request.seconds:
            self._tell(f"it expires in {seconds / 86400:.1f} days: this gateway takes nothing for longer")
        key = secrets.token_bytes(FILE_KEY_SIZE)
        keys = FileKeys.of(key)
        gateway = Gateway(dendrite, peer, None)
        create = CreateFile(
            access=keys.access.public_key,
            data_shards=data_shards,
            parity_shards=parity_shards,
            expires=now + seconds,
        )
        created = await gateway.ask(
            lambda: gateway.calls.create_file(gateway.peer, create, deadline=DEADLINE)
        )
        if created.id != keys.file_id:
            raise GatewayError(f"the gateway answers with file {created.id.hex()}")
        if (created.data_shards, created.parity_shards) != (data_shards, parity_shards):
            self._tell(
                f"stored as {created.data_shards} data and {created.parity_shards} parity shards, which is "
                "what the network can bear now"
            )
        row = FileRow(
            id=created.id,
            name=self._request.name,
            key=key,
            kind=source.kind,
            state="uploading",
            data_shards=created.data_shards,
            parity_shards=created.parity_shards,
            created=now,
            expires=now + seconds,
            genesis=info.genesis,
            netuid=info.netuid,
            gateway_hotkey=peer.hotkey,
            gateway_ip=gateway.endpoint.ip,
            gateway_port=gateway.endpoint.port,
        )
        self._catalog.begin(row)
        return gateway, row

    async def _upload(
        self, source: Source, row: FileRow, gateway: Gateway, dendrite: Dendrite, *, resumed: bool
    ) -> dict[str, Any]:
        if source.kind != row.kind:
            raise SourceChanged(
                f"the upload of {row.name!r} was begun with a {row.kind}", remedy="Put it anew with --replace"
            )
        if (self._request.least or 0) > row.data_shards + row.parity_shards:
            raise UsageError(
                f"a stripe has {row.data_shards + row.parity_shards} shards, and --min-shards is more",
                remedy="Ask for fewer",
            )
        if resumed:
            self._tell(f"going on with the upload of {row.name!r}")
        with Meter(f"putting {row.name}", source.size, self._console, quiet=self._quiet) as meter:
            upload = Upload(
                source,
                row,
                gateway,
                MinerCalls(dendrite),
                self._catalog,
                least=max(self._request.least or 0, row.data_shards),
                progress=meter.add,
            )
            outcome = await upload.run()
        replaced = self._catalog.finish(row.id, outcome.size, outcome.sha256)
        if replaced is not None:
            await self._remove(gateway, replaced)
        self._say(row, outcome)
        return {
            "name": row.name,
            "id": row.id.hex(),
            "size": outcome.size,
            "sha256": outcome.sha256.hex(),
            "data_shards": row.data_shards,
            "parity_shards": row.parity_shards,
            "stripes": outcome.stripes,
            "short_stripes": len(outcome.short),
            "expires": row.expires,
            "gateway": f"http://{gateway.endpoint}",
            "resumed": resumed,
            "replaced": replaced.id.hex() if replaced else None,
        }

    async def _remove(self, gateway: Gateway, old: FileRow) -> None:
        """Put the file before into the trash; its name is taken from it already."""
        try:
            state = await gateway.ask(lambda: gateway.calls.remove(gateway.peer, old.id, deadline=DEADLINE))
        except TensorageError as error:
            self._tell(f"the file before, {old.id.hex()}, is not removed yet: {error}")
            return
        self._catalog.move(old.id, "trash", state.until)

    def _say(self, row: FileRow, outcome: Outcome) -> None:
        if not outcome.short:
            return
        fewest = min(outcome.short.values())
        self._tell(
            f"{len(outcome.short)} of {outcome.stripes} stripes have fewer than "
            f"{row.data_shards + row.parity_shards} shards, the fewest {fewest} ({row.data_shards} are "
            "enough); the validator repairs them"
        )
        for hotkey, reason in outcome.failures.items():
            self._tell(f"miner {hotkey}: {reason}")
