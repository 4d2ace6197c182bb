"""get, from a name to a file: where it goes, going on with what was begun, directories, ranges."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import UsageError
from . import tree
from .catalog import Catalog
from .coder import Coder
from .download import Download
from .fetching import Fetcher
from .gateway import Access
from .home import sync_directory
from .known import Known, known_file, safe_name
from .meter import Meter
from .parts import PartFile, WrongDigest
from .reach import reaching

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file."""

    offset: int
    length: int

    @classmethod
    def parse(cls, text: str, size: int) -> Span:
        """The range `A-B` of a file of `size` bytes, both inclusive as in HTTP; `A-` to its end.

        Raises:
            UsageError: it is none of the file's.
        """
        found = _RANGE.fullmatch(text)
        if found is None:
            raise UsageError(f"{text[:80]!r} is no range", remedy="Write it like 0-1023, or 1024- to the end")
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if first > last:
            raise UsageError(f"range {text} is not within the file, which has {size} bytes")
        return cls(first, last - first + 1)


class Get:
    """One `get`.

    Args:
        output: a path; `-` for stdout; None for the file's own name here.
        span: a range as text; None for all of it.
        tell: takes lines for the user.
    """

    def __init__(
        self,
        catalog: Catalog | None,
        access: Access,
        console: Console,
        tell: Callable[[str], None],
        *,
        output: Path | None,
        span: str | None,
        quiet: bool = False,
    ) -> None:
        self._catalog = catalog
        self._access = access
        self._console = console
        self._tell = tell
        self._span = span
        self._quiet = quiet
        self._named = output is not None
        self._output = output or (Path("-") if span is not None else None)

    async def run(self, what: str) -> dict[str, Any]:
        """Fetch it; what came of it, for JSON."""
        known = await asyncio.to_thread(known_file, self._catalog, what)
        manifest = known.manifest
        span = Span.parse(self._span, manifest.size) if self._span is not None else None
        target = self._output or Path(safe_name(manifest))
        unpack = manifest.kind == "directory" and span is None and str(target) != "-"
        self._check(target, unpack)
        async with reaching(known, self._access, self._catalog) as reach:
            with Coder(known.keys.spread, manifest.id) as coder:
                fetcher = Fetcher(reach.places, reach.miners, coder, reach.gateway)
                try:
                    began = await self._fetch(known, fetcher, coder, target, span, unpack=unpack)
                finally:
                    await fetcher.finish()
        for stripe, number, hotkey, reason in fetcher.wrong:
            self._tell(
                f"shard {number} of stripe {stripe}, at miner {hotkey}, was wrong and made up for: {reason}"
            )
        return {
            "name": manifest.name,
            "id": manifest.id.hex(),
            "kind": manifest.kind,
            "path": None if str(target) == "-" else str(target.absolute()),
            "size": span.length if span else manifest.size,
            "sha256": None if span else manifest.sha256.hex(),
            "resumed_at": began,
            "wrong_shards": [
                {"stripe": stripe, "number": number, "hotkey": hotkey}
                for stripe, number, hotkey, _ in fetcher.wrong
            ],
        }

    def _check(self, target: Path, unpack: bool) -> None:
        """See that the outcome may be called so."""
        if str(target) == "-":
            if os.isatty(1):
                raise UsageError("bytes would go to the terminal", remedy="Pipe them, or name a file with -o")
            return
        if target.is_dir() or (unpack and os.path.lexists(target)):
            raise UsageError(f"{target} is there already", remedy="Name another place with -o")
        if not self._named and os.path.lexists(target):
            raise UsageError(
                f"{target} is there already", remedy=f"Overwrite it with -o {target}, or name another place"
            )
        if not target.absolute().parent.is_dir():
            raise UsageError(f"{target.absolute().parent} is no directory", remedy="Make it first")

    async def _fetch(
        self,
        known: Known,
        fetcher: Fetcher,
        coder: Coder,
        target: Path,
        span: Span | None,
        *,
        unpack: bool,
    ) -> int:
        """Fetch to its place; the byte it went on from."""
        manifest = known.manifest
        size = span.length if span else manifest.size
        with Meter(f"getting {manifest.name}", size, self._console, quiet=self._quiet) as meter:
            download = Download(manifest, known.keys, fetcher, coder, meter.add)
            if str(target) == "-":
                await self._pipe(download, manifest.sha256, span)
                return 0
            digest = None if span else manifest.sha256
            part = await asyncio.to_thread(PartFile, target, manifest.id, size, digest)
            with part:
                began = part.at
                meter.add(began)
                await download.run(part.write, (span.offset if span else 0) + began, size - began)
                await asyncio.to_thread(part.check)
                if unpack:
                    await asyncio.to_thread(_unpack, part.part, target)
                    part.drop()
                else:
                    await asyncio.to_thread(part.finish)
            return began

    async def _pipe(self, download: Download, digest: bytes, span: Span | None) -> None:
        state = sha256()

        def write(view: memoryview) -> None:
            state.update(view)
            try:
                while view:
                    view = view[os.write(1, view) :]
            except OSError as error:
                raise UsageError(f"stdout cannot be written: {error.strerror}") from error

        if span is not None:
            await download.run(write, span.offset, span.length)
            return
        await download.run(write)
        if state.digest() != digest:
            raise WrongDigest("what was written to stdout is not the file", remedy="Do not use it")


def _unpack(archive: Path, target: Path) -> None:
    """Lay out a directory beside its place, then give it its name."""
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    try:
        with archive.open("rb") as stream:
            tree.unpack(stream, place)
        place.chmod(0o755)
        if os.path.lexists(target):
            raise UsageError(f"{target} is there by now", remedy="Name another place with -o")
        place.rename(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be laid out: {error.strerror}") from error
    finally:
        if place.exists():
            shutil.rmtree(place, ignore_errors=True)
    sync_directory(target.absolute().parent)
