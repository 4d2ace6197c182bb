"""Disks: how much is free, and which is which.

A file `disk.id` in each data directory names the disk for good, so that sectors are found when it is mounted
somewhere else, a mount point whose disk is missing is not taken for an empty disk, and sectors of another
database (of the disks named in another order, or of one that was lost) are not taken for rubbish.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from .files import make_directory, sync_directory
from .layout import DATABASE, DISK_ID, SECTORS, parse_sector_path
from .plan import Disk
from .store import Store


def prepare_directory(directory: Path) -> Path:
    """Make a data directory where it is missing, and see that it can be written.

    Raises:
        UsageError: it cannot.
    """
    try:
        directory = directory.expanduser().resolve()
        make_directory(directory)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied")
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{directory} cannot be used: {why}", remedy="Name a writable directory with --db_root_path"
        ) from error
    return directory


def attach(store: Store, directories: Sequence[Path]) -> list[str]:
    """Tell the store where its disks are; returns the ids of the directories, in order.

    Raises:
        UsageError: a directory should hold sectors and its disk is not there, or holds sectors of another
            database, or one disk is named twice.
    """
    known = {directory: id for id, directory in store.disks().items()}
    filled = {sector.directory for sector in store.sectors("sealed")}
    ids: dict[str, Path] = {}
    for directory in directories:
        id = _read_id(directory)
        if id is None and directory in filled and not _holds_sectors(directory):
            raise UsageError(
                f"{directory} should hold sectors and is empty: the disk is not mounted",
                remedy="Mount it, or leave its --db_root_path out",
            )
        if (id or known.get(directory)) not in known.values() and _holds_sectors(directory):
            raise _of_another_database(store, directory, directories)
        if id is None:
            id = known.get(directory) or secrets.token_hex(16)
            _write_id(directory, id)
        if id in ids:
            raise UsageError(f"{directory} and {ids[id]} are one disk", remedy="Name it once")
        ids[id] = directory
    store.record_disks(ids)
    return list(ids)


def _holds_sectors(directory: Path) -> bool:
    """Whether there are finished sectors, whoever vouches for them."""
    found = (parse_sector_path(path) for path in (directory / SECTORS).glob("??/*"))
    return any(parsed is not None and parsed[1] for parsed in found)


def _of_another_database(store: Store, directory: Path, directories: Sequence[Path]) -> UsageError:
    others = [place for place in directories if place != store.path.parent and (place / DATABASE).exists()]
    first = f"Name {others[0].parent} first" if others else "Name the disk with their database first"
    return UsageError(
        f"{directory} holds sectors that are not in the database {store.path}",
        remedy=f"{first}, or give these sectors up: delete {directory / SECTORS}",
    )


def survey(store: Store, ids: Sequence[str]) -> list[Disk]:
    """The disks as they are now: those named, in order, then others that are there and hold sectors.

    Raises:
        UsageError: a disk cannot be asked.
    """
    places = store.disks()
    used = {sector.directory for sector in store.sectors()}
    others = [id for id, place in places.items() if id not in ids and place in used and place.is_dir()]
    return [_measure(id, places[id], named=id in ids) for id in [*ids, *others]]


def _measure(id: str, directory: Path, *, named: bool) -> Disk:
    try:
        status = os.statvfs(directory)
        device = directory.stat().st_dev
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be used: {error.strerror}", remedy="Check that its disk is mounted"
        ) from error
    unit = status.f_frsize
    return Disk(id, directory, device, status.f_blocks * unit, status.f_bavail * unit, named)


def _read_id(directory: Path) -> str | None:
    try:
        return (directory / DISK_ID).read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{directory / DISK_ID} cannot be read: {error}", remedy="Check the disk, or delete the file"
        ) from error


def _write_id(directory: Path, id: str) -> None:
    path = directory / DISK_ID
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("w") as file:
            file.write(id + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(directory)
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be written: {error.strerror}", remedy="Free space or make it writable"
        ) from error
