"""Which file is meant: a name or an id of the catalog, or a link file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

from ..chain.address import public_key
from ..coding.keys import FileKeys
from ..coding.manifest import MOST_MANIFEST, Manifest, ShardAt, StripeAt
from ..coding.manifest import Gateway as GatewayAt
from ..errors import ProofError, StorageError, UsageError
from ..ticket import SignedTicket
from .catalog import Catalog, FileRow, ShardRow

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Known:
    """A file that can be fetched; `row` is None for one of a link."""

    manifest: Manifest
    key: bytes = field(repr=False)
    row: FileRow | None

    @property
    def keys(self) -> FileKeys:
        """The file's keys."""
        return FileKeys.of(self.key)


def known_file(catalog: Catalog | None, what: str) -> Known:
    """The stored file that `what` names: by its name, by its id, or as a link file.

    Raises:
        UsageError: there is none.
        ProofError: it names a link file that was altered.
    """
    row = row_of(catalog, what) if catalog is not None else None
    if row is not None and catalog is not None:
        return Known(manifest_of(catalog, row), row.key, row)
    if (link := _read(Path(what))) is not None:
        try:
            return known_link(link)
        except ProofError as error:
            _check_state(catalog, what)
            raise ProofError(
                f"{what!r} is no file of yours, and no good as a link: {error}",
                remedy="Ask for the link again, or see your files with: tensorage ls",
            ) from error
    _check_state(catalog, what)
    raise UsageError(f"there is no file, id or link {what!r}", remedy="See what there is with: tensorage ls")


def known_link(link: bytes) -> Known:
    """The file that the bytes of a link file are of. Whoever made them may have put anything into them.

    Raises:
        ProofError: they are no link, or contradict themselves.
    """
    manifest, key = Manifest.parse_link(link)
    _check_hotkeys(manifest)
    return Known(manifest, key, None)


def _check_state(catalog: Catalog | None, what: str) -> None:
    """Check that no file of that name is on its way or in the trash.

    Raises:
        UsageError: there is one.
    """
    if catalog is None:
        return
    if catalog.named(what, "uploading") is not None:
        raise UsageError(f"{what!r} is not stored completely", remedy="Go on with the put that began it")
    if catalog.named(what, "trash") is not None:
        raise UsageError(f"{what!r} is removed", remedy=f"Bring it back with: tensorage rm --undo {what}")


def _check_hotkeys(manifest: Manifest) -> None:
    """Check that the hotkeys in a link are addresses, and those of the miners that the tickets name.

    Raises:
        ProofError: one is not.
    """
    miners: dict[bytes, str] = {}
    try:
        public_key(manifest.gateway.hotkey)
        for stripe in manifest.stripes:
            for shard in stripe.shards:
                miner = shard.signed.ticket.miner
                if miners.setdefault(miner, shard.hotkey) != shard.hotkey:
                    raise ProofError(f"the link names two hotkeys for the miner {miner.hex()}")
        for miner, hotkey in miners.items():
            if public_key(hotkey) != miner:
                raise ProofError(f"the link names hotkey {hotkey} for a ticket of {miner.hex()}")
    except ValueError as error:
        raise ProofError(f"the link names a hotkey that is none: {error}") from error


def row_of(catalog: Catalog, what: str) -> FileRow | None:
    """The stored file of that name or id."""
    row = catalog.named(what, "stored")
    if row is None and _ID.fullmatch(what):
        row = catalog.file(bytes.fromhex(what))
    return row if row is not None and row.state == "stored" else None


def manifest_of(catalog: Catalog, row: FileRow) -> Manifest:
    """The manifest of a stored file.

    Raises:
        StorageError: the catalog contradicts itself.
    """
    if row.size is None or row.sha256 is None:
        raise StorageError(f"the catalog has {row.name!r} as stored, without its size")
    return Manifest(
        id=row.id,
        name=row.name,
        kind=row.kind,
        size=row.size,
        sha256=row.sha256,
        data_shards=row.data_shards,
        parity_shards=row.parity_shards,
        created=row.created,
        expires=row.expires,
        genesis=row.genesis,
        netuid=row.netuid,
        gateway=GatewayAt(row.gateway_hotkey, row.gateway_ip, row.gateway_port),
        stripes=tuple(
            StripeAt(mark.number, mark.leaves, _Shards(catalog, row.id, mark.number))
            for mark, _ in catalog.stripes(row.id)
        ),
    )


class _Shards(Sequence[ShardAt]):
    """The shards of a stripe, read when they are wanted: a file's first byte needs those of one."""

    def __init__(self, catalog: Catalog, file: bytes, stripe: int) -> None:
        self._catalog = catalog
        self._file = file
        self._stripe = stripe

    @cached_property
    def _all(self) -> tuple[ShardAt, ...]:
        rows = self._catalog.shards(self._file, self._stripe)
        return tuple(
            ShardAt(row.number, SignedTicket.decode(row.ticket), row.hotkey, row.ip, row.port) for row in rows
        )

    @overload
    def __getitem__(self, index: int) -> ShardAt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ShardAt]: ...
    def __getitem__(self, index: int | slice) -> ShardAt | Sequence[ShardAt]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)


def learned(catalog: Catalog, row: FileRow, stripe: int, shard: ShardAt, same: bool) -> None:
    """Note that a shard has another ticket by now or, if it is the same, that its miner serves elsewhere."""
    if same:
        catalog.moved(shard.hotkey, shard.ip, shard.port)
        return
    replaced = ShardRow(
        stripe=stripe,
        number=shard.number,
        ticket=shard.signed.encode(),
        hotkey=shard.hotkey,
        ip=shard.ip,
        port=shard.port,
        unix_ms=0,
        signature=b"",
    )
    catalog.keep(row.id, [replaced])


def _read(path: Path) -> bytes | None:
    """What is in a file; None when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def safe_name(manifest: Manifest) -> str:
    """The last part of the file's name: what to call it here.

    Raises:
        ProofError: it may not be called so.
    """
    name = manifest.name.rsplit("/", 1)[-1]
    if name in ("", ".", "..") or "\0" in name:
        raise ProofError(f"{manifest.name!r} is no name of a file")
    return name
