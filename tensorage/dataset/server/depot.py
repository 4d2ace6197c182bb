"""Keeping the artifacts of a dataset in the storage subnet, so that this host need not send them.

Rules. What is put is what was signed: the artifact is hashed before, and what the subnet says that it has
taken must have the same hash. A version that is stored already, and not about to expire, is not put again; an
upload that broke off is gone on with. The links are kept in the store and go to members only. Miners move and
shards are repaired, so links are written anew now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...client import owning
from ...client.catalog import Catalog, FileRow
from ...client.gateway import Access
from ...client.home import Home
from ...client.put import Put, Request
from ...errors import StorageError, TensorageError
from ..artifacts import Artifact
from ..links import SubnetLink
from ..store import Store

logger = logging.getLogger(__name__)

DAY = 86_400
#: A file that ends sooner than this, or than a quarter of its time, is put anew.
_LEAST_LEFT = 2 * DAY
#: Seconds between two looks for new versions; between two links of one file; after what failed.
_LOOK_SECONDS = 1.0
_REFRESH_SECONDS = 6 * 3600
_AGAIN_SECONDS = 60


@dataclass(frozen=True)
class Rent:
    """How things are stored.

    Attributes:
        access: the gateway, and as whom it is asked.
        home: the client's directory, where the keys of files are kept.
        seconds: for how long to keep a file.
    """

    access: Access
    home: Path
    seconds: int


class Depot:
    """The versions of one dataset in the subnet. A context manager.

    Args:
        clock: unix seconds.
        tell: takes lines for the operator.
        warn: the same, for what must be seen.

    Raises:
        UsageError: the client's directory cannot be used.
    """

    def __init__(
        self,
        store: Store,
        id: str,
        rent: Rent,
        *,
        clock: Callable[[], int],
        tell: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._store = store
        self._id = id
        self._rent = rent
        self._clock = clock
        self._tell = tell
        self._warn = warn
        self._due: dict[int, int] = {}
        self._said: dict[int, str] = {}
        self._home = Home(rent.home)
        self._catalog = Catalog(self._home.catalog)

    def __enter__(self) -> Depot:
        return self

    def __exit__(self, *_: object) -> None:
        self._catalog.close()

    async def keep(self, version: int, *, refresh: bool = False) -> SubnetLink:
        """Have a version stored.

        Args:
            refresh: write its link anew, if it is stored.

        Raises:
            UsageError: there is neither key nor wallet, or no gateway; it says what to do.
            GatewayError, TooFewMiners: the gateway is away or refuses, or miners do.
            StorageError: the artifact is missing, or is not what was signed.
        """
        now = self._clock()
        artifact = await asyncio.to_thread(self._store.artifact, self._id, version)
        kept = await asyncio.to_thread(self._store.link, self._id, version)
        await asyncio.to_thread(self._catalog.expire, now)
        name = f"datasets/{self._id}/v{version}-{artifact.sha256.hex()[:16]}"
        row = await asyncio.to_thread(self._catalog.named, name, "stored")
        if row is not None and not self._fits(row, artifact, now):
            row = None
        if kept is not None and not self._is_good(kept, artifact, now):
            kept = None
        if kept is not None and (row is None or (row.id == kept.file_id and not refresh)):
            return kept
        if row is None:
            row = await self._put(artifact, name)
        return await self._share(row, artifact)

    async def run(self) -> None:
        """Have all versions stored, the newest first, and those that come; goes on for ever."""
        newest, next_due = 0, 0
        while True:
            now = self._clock()
            found, _ = await asyncio.to_thread(self._store.newest, self._id)
            if found != newest or now >= next_due:
                newest = found
                for version in range(newest, 0, -1):
                    if now >= self._due.get(version, 0):
                        self._due[version] = await self._try(version)
                next_due = min(self._due.values(), default=now)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _try(self, version: int) -> int:
        """Have a version stored, or say why it is not; when to look at it again."""
        try:
            link = await self.keep(version, refresh=True)
        except TensorageError as error:
            if self._said.get(version) != str(error):
                self._said[version] = str(error)
                self._warn(f"version {version} is not in the storage subnet: {error}")
            return self._clock() + _AGAIN_SECONDS
        self._said.pop(version, None)
        return min(_renewed(link.stored, link.expires), self._clock() + _REFRESH_SECONDS)

    def _fits(self, row: FileRow, artifact: Artifact, now: int) -> bool:
        return row.sha256 == artifact.sha256 and now < _renewed(row.created, row.expires)

    def _is_good(self, kept: SubnetLink, artifact: Artifact, now: int) -> bool:
        if kept.file_hash != artifact.sha256 or now >= _renewed(kept.stored, kept.expires):
            return False
        row = self._catalog.file(kept.file_id)
        return row is None or row.state == "stored"

    async def _put(self, artifact: Artifact, name: str) -> FileRow:
        await asyncio.to_thread(self._store.check_artifact, artifact)
        self._tell(f"putting version {artifact.seq} into the storage subnet, {artifact.size} bytes")
        request = Request(artifact.path, name, None, self._rent.seconds, replace=True, least=None)
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        put = Put(self._home, self._catalog, self._rent.access, request, console, self._tell, quiet=True)
        outcome = await put.run()
        row = await asyncio.to_thread(self._catalog.file, bytes.fromhex(outcome["id"]))
        if row is None or row.sha256 != artifact.sha256:
            raise StorageError(
                f"{artifact.path} was changed while it was put into the subnet",
                remedy="Look at the disk, and see dataset version --repair",
            )
        logger.info("put dataset=%s version=%d file=%s", self._id, artifact.seq, row.id.hex())
        return row

    async def _share(self, row: FileRow, artifact: Artifact) -> SubnetLink:
        link = await owning.share(self._catalog, self._rent.access, row.name, self._tell)
        found = SubnetLink(self._id, artifact.seq, artifact.sha256, row.id, link, row.created, row.expires)
        await asyncio.to_thread(self._store.keep_link, found)
        return found


def _renewed(stored: int, expires: int) -> int:
    """When a file that was stored then is to be put anew."""
    return expires - min(_LEAST_LEFT, (expires - stored) // 4)
