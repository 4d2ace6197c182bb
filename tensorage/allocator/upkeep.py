"""Keeping a data directory in order: what `allocate` and the miner do, step by step.

    with DataDirectory(roots, identity) as data, data.filling():
        data.recover()                        # after whatever stopped the last one
        plan = data.plan(target, headroom)    # to show, or to act on
        data.apply(plan)
        data.fill(workers)
        data.give_back(workers)               # the slots of shards that are over
        data.verify(workers)
        data.verify_shards()
    data.settle()                             # after each commitment; needs no `filling`

Order is what makes it safe to stop anywhere: a file is in place before its row says sealed, and a row is gone
before its file is. So a file without a row was never trusted and is removed, and a row without a file is
planned anew. A sector that has slots keeps its row in any case: it is quarantined, sealed again whole, and
its slots stay, since their shards lie in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError, UsageError
from . import disks, locks, machine, overlay, schema, slots
from .layout import (
    DATABASE,
    DISK_ID,
    SECTORS,
    SHARDS,
    Identity,
    parse_sector_path,
    parse_shard_path,
    sector_path,
)
from .overlay import LostShard, Settled
from .plan import Headroom, Held, Plan, Target, make_plan
from .sealing import Control, Job, Observer, Progress, Supervisor
from .store import Sector, Store


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the last run left behind.

    Attributes:
        removed: files that no row vouches for.
        lost: sectors whose file is gone; their place in the plan is made anew.
        damaged: sectors whose file has the wrong size, or is gone while shards have slots in them, and those
            that were quarantined before.
        shards: clients' shards whose file is gone or has the wrong size; they are given up.
    """

    removed: tuple[Path, ...]
    lost: tuple[Sector, ...]
    damaged: tuple[Sector, ...]
    shards: tuple[LostShard, ...] = ()


@dataclass(frozen=True, slots=True)
class Damage:
    """A sector that verification has found wrong, and what is wrong with it."""

    sector: Sector
    why: str


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn what the system refuses about one of our files into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename} cannot be used: {error.strerror}", remedy="Check the disk and its permissions"
        ) from error


def _ignore(progress: Progress) -> None:
    """Nobody watches."""


class DataDirectory:
    """The sectors of one identity on one or several disks. A context manager.

    Args:
        roots: what --db_root_path names; the database is in the first.

    Raises:
        UsageError: a directory or the database cannot be used, or a disk is missing.
    """

    def __init__(self, roots: Sequence[Path], identity: Identity) -> None:
        if not roots:
            raise UsageError("no directory is named", remedy="Name one with --db_root_path")
        self.identity = identity
        self.directories = [disks.prepare_directory(root / identity.directory_name) for root in roots]
        self.store = Store(self.directories[0] / DATABASE, identity)
        try:
            self._ids = disks.attach(self.store, self.directories)
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        """Close the database; safe to call twice."""
        self.store.close()

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def filling(self) -> Iterator[None]:
        """The right to change what is here, against other processes.

        Raises:
            BusyError: another process has it.
        """
        with locks.filling(self.directories[0]):
            yield

    @_disk_errors()
    def recover(self) -> Recovery:
        """Put right what a killed process or somebody else has left; under `filling`.

        Raises:
            UsageError: a disk is no longer there. Nothing is touched then.
            StorageError: a file or the database cannot be used.
        """
        self._ids = disks.attach(self.store, self.directories)
        rows = {sector.index: sector for sector in self.store.sectors()}
        removed = []
        for directory in self.directories:
            for path in sorted((directory / SECTORS).glob("??/*")):
                parsed = parse_sector_path(path)
                if parsed is None:
                    continue
                index, finished = parsed
                row = rows.get(index)
                if finished and row is not None and row.state != "planned" and row.path == path:
                    continue
                path.unlink()
                removed.append(path)
        whole = self.identity.sectors.size
        lost, damaged = [], []
        slotted = self.store.read(slots.sectors_with_slots)
        for row in rows.values():
            if row.state == "planned":
                continue
            if not row.path.is_file():
                if row.index not in slotted:
                    lost.append(row)
                    continue
                self.store.quarantine(row.index, "is gone")
            elif (size := row.path.stat().st_size) != whole:
                self.store.quarantine(row.index, f"has {size} bytes, not {whole}")
            now = self.store.sector(row.index)
            if now is not None and now.state == "quarantined":
                damaged.append(now)
        self.store.forget(row.index for row in lost)
        shards = overlay.missing(self.store, self.directories)
        return Recovery(tuple(removed), tuple(lost), tuple(damaged), tuple(shards))

    def plan(self, target: Target, headroom: Headroom) -> Plan:
        """What to do to come to the target; nothing is done yet.

        Raises:
            UsageError: as `make_plan`.
        """
        surveyed = disks.survey(self.store, self._ids)
        id_of = {disk.directory: disk.id for disk in surveyed}
        slotted = self.store.read(slots.sectors_with_slots)
        held = [
            Held(
                row.index,
                id_of[row.directory],
                row.state == "sealed",
                row.path.is_file(),
                row.index in slotted,
            )
            for row in self.store.sectors()
            if row.state != "planned" and row.directory in id_of
        ]
        return make_plan(self.identity.sectors, surveyed, held, target, headroom)

    @_disk_errors()
    def apply(self, plan: Plan) -> None:
        """Drop what the plan removes, which frees its space at once, and note what it adds; under `filling`.

        A commitment that lists dropped sectors cannot be answered any more: the next one leaves them out.

        Raises:
            StorageError: a file or the database cannot be used.
        """
        places = self.store.disks()
        dropped = set(self.store.forget(place.index for place in plan.remove))
        for place in plan.remove:
            if place.index in dropped:  # none that has got a slot since the plan was made
                sector_path(places[place.disk], place.index).unlink(missing_ok=True)
        self.store.plan((place.index, place.disk) for place in plan.add)

    def unsealed(self) -> list[Sector]:
        """Sectors to seal: the planned and the quarantined ones on disks that are named."""
        return [
            row for row in self.store.sectors() if row.state != "sealed" and row.directory in self.directories
        ]

    @_disk_errors()
    def fill(
        self, workers: int | None = None, control: Control | None = None, observer: Observer = _ignore
    ) -> bool:
        """Seal what is not sealed; under `filling`. False when it was stopped before the end.

        Args:
            workers: processes at most; the processor threads by default.

        Raises:
            NoSpaceError: a disk is full.
            UsageError: the memory is not enough for one worker.
            StorageError: workers keep dying, or a disk or the database cannot be written.
        """
        jobs = []
        for row in sorted(self.unsealed(), key=lambda row: row.state != "quarantined"):
            row.path.unlink(missing_ok=True)  # of a damaged one: its bytes are worth nothing
            jobs.append(Job(row.index, row.path, seal=True))

        def on_nodes(job: Job, nodes: bytes) -> None:
            self.store.record_sealed(job.index, nodes)

        def on_damaged(job: Job, why: str) -> None:
            raise StorageError(f"sector {job.index} cannot be sealed into {job.path}: {why}")

        return self._run(jobs, workers, control, observer, on_nodes, on_damaged)

    def verify(
        self,
        workers: int | None = None,
        control: Control | None = None,
        observer: Observer = _ignore,
        *,
        only: Collection[int] | None = None,
    ) -> list[Damage]:
        """Read every sealed sector and compare it with its stored tree; quarantine those that differ.

        Args:
            only: the sectors to read; all by default.

        Raises:
            StorageError: workers keep dying, or a disk or the database cannot be read.
        """
        rows = {row.index: row for row in self.store.sectors("sealed")}
        found: list[Damage] = []

        def on_damaged(job: Job, why: str) -> None:
            if self.store.quarantine(job.index, why):
                found.append(Damage(rows[job.index], why))

        def on_nodes(job: Job, nodes: bytes) -> None:
            if overlay.differs(self.store, job.index, nodes):
                on_damaged(job, "has bytes that are not those that were sealed")

        jobs = [
            Job(row.index, row.path, seal=False)
            for row in rows.values()
            if row.directory.is_dir() and (only is None or row.index in only)
        ]
        self._run(jobs, workers, control, observer, on_nodes, on_damaged)
        return found

    @_disk_errors()
    def give_back(
        self, workers: int | None = None, control: Control | None = None, observer: Observer = _ignore
    ) -> bool:
        """Seal filler into the holes of slots that have ended; under `filling`. False when it was stopped.

        The slots go on to be committed and answered for until that is done and flushed; the commitment after
        leaves them out.

        Raises:
            NoSpaceError, UsageError, StorageError: as `fill`.
        """
        holes = overlay.refill(self.store, self.directories)

        def on_nodes(job: Job, nodes: bytes) -> None:
            if nodes != b"".join(self.store.nodes(job.index)):
                on_damaged(job, "has other nodes than those that were stored")
                return
            self.store.write(lambda db: slots.filled(db, holes[job]))

        def on_damaged(job: Job, why: str) -> None:
            self.store.quarantine(job.index, why)

        return self._run(list(holes), workers, control, observer, on_nodes, on_damaged)

    @_disk_errors()
    def settle(self) -> Settled:
        """Give back the space of filler and of shards that no commitment has any more that is answered.

        At any time, beside anything else: after a commitment there is something to do.

        Raises:
            StorageError: a file or the database cannot be used.
        """
        return overlay.settle(self.store)

    @_disk_errors()
    def verify_shards(self, control: Control | None = None) -> list[LostShard]:
        """Read every shard and compare it with its stored nodes; those that differ are given up.

        Raises:
            StorageError: a disk or the database cannot be read.
        """
        control = control or Control()
        return overlay.verify(self.store, self.directories, lambda: control.stopped)

    def _run(
        self,
        jobs: Sequence[Job],
        workers: int | None,
        control: Control | None,
        observer: Observer,
        on_nodes: Callable[[Job, bytes], None],
        on_damaged: Callable[[Job, str], None],
    ) -> bool:
        if not jobs:
            return True
        memory = machine.available_memory() if jobs[0].seal else None
        count = machine.worker_count(self.identity.sectors, len(jobs), most=workers, memory=memory)
        return Supervisor(self.identity, on_nodes, on_damaged, control or Control(), observer).run(
            jobs, count
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a restart has removed.

    Attributes:
        files: how many.
        chain_kept: whether the miner's chain of commitments goes on; it cannot where the database is damaged.
    """

    files: int
    chain_kept: bool


def drop(roots: Sequence[Path], identity: Identity) -> Dropped:
    """Empty the database and remove an identity's files, sectors and shards, on every disk that is named.

    Nothing but our own files is removed, by their names, and directories that are empty then. The signed
    chain of commitments goes on, wherever it can be read.

    Raises:
        BusyError: somebody has the database open.
        UsageError: a file cannot be removed.
    """
    places = [root.expanduser().resolve() / identity.directory_name for root in roots]
    directories = [place for place in places if place.is_dir()]
    if not directories:
        return Dropped(0, True)
    with locks.filling(directories[0]), locks.alone(directories[0]):
        database = directories[0] / DATABASE
        files = 0
        try:
            if not (kept := not database.exists() or schema.wipe(database, identity)):
                for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
                    (directories[0] / name).unlink(missing_ok=True)
            for directory in directories:
                for path in (directory / SECTORS).glob("??/*"):
                    if parse_sector_path(path) is not None:
                        path.unlink()
                        files += 1
                for path in (directory / SHARDS).glob("??/*"):
                    if parse_shard_path(path) is not None:
                        path.unlink()
                        files += 1
                (directory / DISK_ID).unlink(missing_ok=True)
                tops = (directory / SECTORS, directory / SHARDS)
                for empty in [*(below for top in tops for below in top.glob("??")), *tops]:
                    if empty.is_dir() and not any(empty.iterdir()):
                        empty.rmdir()
        except OSError as error:
            raise UsageError(
                f"{error.filename} cannot be removed: {error.strerror}", remedy="Remove it by hand"
            ) from error
    return Dropped(files, kept)
