"""Store: everything that an owner keeps, in one directory.

    HOME/datasets.sqlite     logs, the sign-journal, members by the hash of their tokens, offers, payments,
                             links into the storage subnet
    HOME/artifacts/          the files of versions, by their hash
    HOME/token.secret        what the tokens of payments are made with
    HOME/lock                who may add to logs; opening.lock: who opens the database

Mode 0700, files 0600: whoever reads it reads the datasets. Any thread may call a method, and several
processes may have one store open. Each method is one short transaction, except those that copy, hash or sign.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from .artifacts import Artifact, Artifacts
from .bundle import Bundle, Ingested, ingest, read_bundle
from .files import Disk
from .home import DEFAULT_HOME, HOME_VARIABLE, unix_now
from .links import LinkRows
from .members import MemberRows
from .pipeline import Tell, untold
from .sales import SaleRows
from .statements import StatementRows

__all__ = ["DEFAULT_HOME", "HOME_VARIABLE", "Artifact", "Ingested", "Store"]

ARTIFACTS_NAME = "artifacts"


class Store(StatementRows, MemberRows, SaleRows, LinkRows):
    """An owner's directory with everything in it; see `home.Home` for its arguments and errors."""

    def __init__(
        self,
        home: Path,
        *,
        disk: Disk | None = None,
        clock: Callable[[], int] = unix_now,
        rng: Callable[[int], bytes] = os.urandom,
        waiting: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(home, disk=disk, clock=clock, rng=rng, waiting=waiting)
        self.artifacts = Artifacts(self.home / ARTIFACTS_NAME, self._disk)

    def ingest(self, bundle: Bundle | Path, *, ignore_hash: bool = False, tell: Tell = untold) -> Ingested:
        """Take a bundle's artifact into the store and hash all its files. Nothing refers to it yet.

        Args:
            bundle: read already, or its directory.
            ignore_hash: take it although manifest.json claims another hash.
            tell: hears of so many more bytes that were read.

        Raises:
            UsageError: it is no bundle, or a file is missing, no regular file, changes, or does not match.
            StorageError: the disk does not take it.
        """
        found = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, ignore_hash=ignore_hash)
        with self.alone():
            self.artifacts.sweep()
            return ingest(found, self.artifacts, ignore_hash=ignore_hash, tell=tell)

    def repair(self, id: str, bundle: Bundle, tell: Tell = untold) -> list[int]:
        """Put a bundle's artifact back where it is missing or damaged; of which versions it is.

        Raises:
            UsageError: no version of the dataset has that artifact, or as `ingest`.
            StorageError: the disk does not take it.
        """
        entries = [signed.entry for signed in self.log(id).entries]
        source = bundle.directory / bundle.artifact
        with self.alone():
            self.artifacts.sweep()
            with self.artifacts.copying(source, tell) as copy:
                found = [entry.seq for entry in entries if entry.file_hash == copy.digest.sha256]
                if not found:
                    raise UsageError(
                        f'no version of dataset "{id}" has the file hash {copy.digest.sha256.hex()}',
                        remedy=f"{source} is another file; find the one that was published",
                    )
                copy.keep()
        return found

    def artifact(self, id: str, seq: int) -> Artifact:
        """The artifact of a version, as the log has it. Nothing is opened or hashed here.

        Raises:
            UsageError: there is no such dataset or version.
        """
        name = self.artifact_name(id, seq)
        entry = self.log(id).at(seq).entry
        return Artifact(
            id=id,
            seq=seq,
            name=name,
            path=self.artifacts.path(entry.file_hash),
            size=entry.size,
            sha256=entry.file_hash,
            chunk_root=entry.chunk_root,
            manifest_hash=entry.manifest_hash,
            manifest_files=self.manifest(entry.manifest_hash),
            artifacts=self.artifacts,
        )

    def has_artifacts(self, id: str) -> bool:
        """Whether the file of any version of a dataset is there, good or not.

        Raises:
            UsageError: there is no such dataset.
        """
        entries = self.log(id).entries
        return any(self.artifacts.path(signed.entry.file_hash).is_file() for signed in reversed(entries))

    def open_artifact(self, artifact: Artifact) -> tuple[int, os.stat_result]:
        """An artifact whose bytes are the signed ones: (descriptor, its state when they were found to be).

        Whoever calls closes it, and compares size, mtime and ctime with os.fstat of the descriptor to see
        that the file was not changed since. It is hashed (some 0.6 s a GB) unless this process has hashed it
        since it last changed.

        Raises:
            StorageError: it is missing, or was changed behind the store's back.
        """
        return self.artifacts.open(artifact.sha256, artifact.size)

    def check_artifact(self, artifact: Artifact) -> None:
        """Hash an artifact, unless this process has since it last changed.

        Raises:
            StorageError: as `open_artifact`.
        """
        os.close(self.open_artifact(artifact)[0])
