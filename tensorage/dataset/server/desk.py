"""What is served at this moment: the log as the store has it, its head statement, intact artifacts.

1. The store is asked on every request whether the log has grown: a new version is served at once.
2. A log that does not verify, or that our key has no part in, is not served, nor are its artifacts.
3. The head statement is signed anew when half its life is over, or the log has grown.
4. An artifact is hashed before it is served for the first time, and whenever its file looks altered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import anyio.to_thread

from ...errors import StorageError, TensorageError, UsageError
from ...transport.limits import Rate, TokenBuckets
from .. import verifying, wire
from ..artifacts import Artifact, ScarceError
from ..entry import Entry, SignedHead
from ..errors import LogError
from ..log import Log
from ..manifest import manifest_json
from ..members import Member, Sent
from .context import Context
from .notes import Notes
from .ranges import Span
from .refusal import Refusal
from .sending import OpenFile, Stamp

logger = logging.getLogger(__name__)

_HASHERS = 4
_AGAIN_SECONDS = 1.0
#: Manifests that are kept encoded; one of 100,000 files has some 12 MB.
_KEPT_MANIFESTS = 4
#: Lines of the log about one version that is not served.
_TOLD_RATE = Rate(per_second=1 / 60, burst=2)


#: Headers of a refusal that is over soon.
SOON = {"retry-after": "5"}


@dataclass(frozen=True)
class Edition:
    """The dataset at one moment.

    Attributes:
        fault: why the log does not hold; None when it does.
        document: the JSON of the log and the head statement.
        head, head_header: the head statement, and the value of X-Dataset-Head; None without a good one.
    """

    log: Log
    fault: str | None
    head: SignedHead | None
    document: bytes
    head_header: str | None

    @property
    def newest(self) -> int:
        """The number of the newest version."""
        return len(self.log.entries)

    def entry(self, version: int) -> Entry:
        """The entry of a version that there is."""
        return self.log.entries[version - 1].entry


class Desk:
    """Keeps the edition up to date, and opens artifacts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hashing = asyncio.Semaphore(_HASHERS)
        self._notes = Notes(context.store)
        self._edition: Edition | None = None
        self._loaded: int | None = None
        self._unsigned = ""
        self._loading = asyncio.Lock()
        self._told = TokenBuckets(_TOLD_RATE, max_keys=1_000)
        self._telling = threading.Lock()
        self._artifacts: dict[int, Artifact] = {}
        self._manifests: OrderedDict[int, bytes] = OrderedDict()
        self._encoding = asyncio.Lock()
        self._opening: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def edition(self) -> Edition:
        """The dataset as it is now.

        Raises:
            StorageError: the store cannot be read.
        """
        seen = await anyio.to_thread.run_sync(self._context.store.newest, self._context.id)
        if not self._is_current(self._edition, seen):
            async with self._loading:
                if not self._is_current(self._edition, seen):
                    before, self._edition = self._edition, await anyio.to_thread.run_sync(self._load)
                    self._tell(before, self._edition)
        if self._edition is None:
            raise RuntimeError("an edition was loaded and is not there")
        return self._edition

    def _is_current(self, edition: Edition | None, seen: tuple[int, int]) -> bool:
        """Whether an edition has all (versions, rotations), and a head of less than half its life."""
        if edition is None or seen > (edition.newest, len(edition.log.rotations)):
            return False
        now = self._context.clock()
        if now == self._loaded:  # what only time changes, and other keys, is looked at once a second
            return True
        if edition.head is None:
            return False
        issued, expires = edition.head.head.issued, edition.head.head.expires
        return issued <= now <= issued + (expires - issued) // 2

    def _load(self) -> Edition:
        context = self._context
        self._loaded = context.clock()
        log = context.store.log(context.id)
        fault = None
        if self._edition is not None and self._edition.log is log:
            fault = self._edition.fault
        else:
            try:
                verifying.verify(log, owner=context.signer.owner, id=context.id)
            except LogError as error:
                fault = str(error)
        head = self._head()
        if head is None:
            fault = fault or f"the key {context.signer.owner} signs for this dataset no more"
        document = json.dumps(wire.log_json(log, head), separators=(",", ":")).encode()
        return Edition(log, fault, head, document, wire.head_header(head) if head else None)

    def _head(self) -> SignedHead | None:
        """The statement that goes with the log; None where nobody here can sign one and none is good."""
        context, now = self._context, self._context.clock()
        try:
            return context.store.sign_head(context.id, context.signer, now)
        except UsageError as error:  # it was handed on to another key, whose owner may have signed one
            if str(error) != self._unsigned:
                self._unsigned = str(error)
                logger.error("publish again with the newest key reason=%r", self._unsigned)  # noqa: TRY400
            found = context.store.head(context.id)
            return found if found is not None and found.head.expires > now else None

    def _tell(self, before: Edition | None, after: Edition) -> None:
        if after.fault is not None and (before is None or before.fault != after.fault):
            logger.error("the version log does not hold, nothing is served reason=%r", after.fault)
        elif before is not None and after.newest != before.newest:
            logger.info("serving a new version dataset=%s version=%d", self._context.id, after.newest)

    async def check(self, edition: Edition, versions: Iterable[int]) -> list[int]:
        """Hash the artifacts of some versions; returns those that have none that is intact.

        Where nothing can be opened at the moment, it waits until something can.
        """
        bad = []
        for version in versions:
            intact = await self._is_intact(edition, version)
            while intact is None:
                await asyncio.sleep(_AGAIN_SECONDS)
                intact = await self._is_intact(edition, version)
            if not intact:
                bad.append(version)
        return bad

    async def _is_intact(self, edition: Edition, version: int) -> bool | None:
        """Whether the bytes of a version are those that were signed; None: that cannot be told now."""
        try:
            _, file = await self.open(edition, version)
        except Refusal as refusal:
            return None if refusal.kind == "server_busy" else False
        file.close()
        return True

    async def artifact(self, version: int) -> Artifact:
        """What is known of the artifact of a version, its bytes unchecked, without its list of files.

        Raises:
            Refusal: `no_artifacts`, `artifact_missing`, `server_busy`.
        """
        return await anyio.to_thread.run_sync(self._artifact, version)

    async def manifest(self, version: int) -> bytes:
        """The JSON of the files of a version; encoded once, by a thread.

        Raises:
            Refusal: `no_artifacts`, `artifact_missing`.
        """
        async with self._encoding:
            found = self._manifests.pop(version, None)
            if found is None:
                found = await anyio.to_thread.run_sync(self._manifest, version)
            self._manifests[version] = found
            if len(self._manifests) > _KEPT_MANIFESTS:
                self._manifests.popitem(last=False)
        return found

    async def open(self, edition: Edition, version: int) -> tuple[Artifact, OpenFile]:
        """The artifact of a version, open, its bytes as they were signed.

        Raises:
            Refusal: `no_artifacts`, `artifact_missing`, `server_busy`.
        """
        async with self._opening[version], self._hashing:
            return await self._in_thread(edition.entry(version))

    async def _in_thread(self, entry: Entry) -> tuple[Artifact, OpenFile]:
        """Open, and hash if need be, in a thread that does not hold up the end of the process."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[tuple[Artifact, OpenFile]] = loop.create_future()

        def deliver(found: tuple[Artifact, OpenFile] | Exception) -> None:
            if isinstance(found, Exception):
                if not opened.done():
                    opened.set_exception(found)
            elif opened.done():  # nobody waits for it any more
                found[1].close()
            else:
                opened.set_result(found)

        def work() -> None:
            found: tuple[Artifact, OpenFile] | Exception
            try:
                found = self._open(entry)
            except Exception as error:  # noqa: BLE001 - raised again where it is awaited
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(deliver, found)

        threading.Thread(target=work, name="opener", daemon=True).start()
        return await opened

    async def leaves(self, artifact: Artifact) -> bytes:
        """The chunk list of an artifact: 32 bytes a chunk.

        Raises:
            Refusal: `no_artifacts`, `artifact_missing`, `server_busy`.
        """
        return await anyio.to_thread.run_sync(self._leaves, artifact)

    async def link(self, entry: Entry) -> str | None:
        """The link to the artifact of a version in the storage subnet; None where there is none to show."""
        context = self._context
        if not context.subnet:
            return None
        found = await anyio.to_thread.run_sync(context.store.link, context.id, entry.seq)
        if found is None or found.file_hash != entry.file_hash or found.expires <= context.clock():
            return None
        return found.link.decode("ascii")

    @property
    def is_behind(self) -> bool:
        """Whether so much of what was sent waits to be noted that no more may be."""
        return self._notes.is_full

    def log_download(self, member: Member, version: int, sent: Sequence[Span]) -> None:
        """Have it noted what a member was sent."""
        now = self._context.clock()
        self._notes.add(Sent(member, version, span.first, span.last + 1, now) for span in sent)

    def close(self) -> None:
        """Wait until all downloads are noted."""
        self._notes.close()

    def _leaves(self, artifact: Artifact) -> bytes:
        try:
            return b"".join(artifact.leaves)
        except TensorageError as error:
            raise self._missing(artifact.seq, error) from error

    def _manifest(self, version: int) -> bytes:
        files = self._stored(version).manifest_files
        return json.dumps(manifest_json(files), ensure_ascii=False, separators=(",", ":")).encode()

    def _artifact(self, version: int) -> Artifact:
        """What is known of the artifact of a version; a version never changes."""
        found = self._artifacts.get(version)
        if found is None:
            found = self._artifacts[version] = replace(self._stored(version), manifest_files=())
        return found

    def _stored(self, version: int) -> Artifact:
        try:
            return self._context.store.artifact(self._context.id, version)
        except UsageError as error:
            raise self._missing(version, error) from error

    def _open(self, entry: Entry) -> tuple[Artifact, OpenFile]:
        artifact = self._artifact(entry.seq)
        if (artifact.sha256, artifact.size) != (entry.file_hash, entry.size):
            raise self._missing(entry.seq, StorageError(f"{artifact.path} is of another version"))
        try:
            fd, found = self._context.store.open_artifact(artifact)
        except TensorageError as error:
            raise self._missing(entry.seq, error) from error
        return artifact, OpenFile(fd, Stamp.of(found))

    def _missing(self, version: int, why: TensorageError) -> Refusal:
        """What is told of a version that cannot be opened; logged here, now and then."""
        with self._telling:
            told = self._told.spend(str(version), self._context.clock())
        if not told:
            logger.error("not served dataset=%s version=%d reason=%r", self._context.id, version, str(why))
        if isinstance(why, ScarceError):
            return Refusal("server_busy", "the server has no room for this now; try again soon", headers=SOON)
        if not self._context.store.has_artifacts(self._context.id):
            return Refusal("no_artifacts", "the owner's server has no data at the moment; try again later")
        return Refusal("artifact_missing", f"the owner's server has no intact data of version {version}")
