"""Which sectors to keep, seal, seal again and remove, and on which disk each goes. Pure.

1. Growth never takes a disk below its headroom: 5 % of its size free, or the operator's own figure. Disks
   on one filesystem share its free space.
2. A new sector takes the lowest free index and goes to the disk with the most room left.
3. Sealed sectors stay where they are. Only a smaller target removes any: damaged ones first, then from the
   highest index down.
4. A disk that is no longer named is left alone: its sectors count, and are neither removed nor replaced.
5. Damaged sectors are sealed again on their own disk, or dropped where it has no room.
6. A sector with clients' shards in it is never removed, and sealed again whether there is room or not.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..errors import UsageError
from ..seal import Profile
from .errors import NoSpaceError

GIB = 1 << 30
DEFAULT_HEADROOM_SHARE = 0.05
#: Bytes of database, write-ahead log included, that a chunk may come to; they go to the first disk.
DATABASE_PER_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Headroom:
    """What stays free on each disk: a share of its size, or a number of bytes."""

    share: float = DEFAULT_HEADROOM_SHARE
    size: int | None = None

    def of(self, total: int) -> int:
        """Bytes to leave free on a disk of `total` bytes."""
        return self.size if self.size is not None else math.ceil(self.share * total)

    @classmethod
    def parse(cls, text: str) -> Headroom:
        """`10%` of each disk, or `50` GiB on each disk.

        Raises:
            UsageError: it is neither.
        """
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        if text.endswith("%") and 0 <= value < 100:
            return cls(share=value / 100)
        if not text.endswith("%") and 0 <= value < math.inf:
            return cls(size=int(value * GIB))
        raise UsageError(
            f"--headroom {text!r} is no amount of space", remedy="Write 10% or a number of GiB, like 50"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """How much to keep: a number of bytes, or a share of the space that is free or ours already.

    Attributes:
        only_grow: whether what is there stays, even where it is more.
    """

    size: int | None = None
    share: float | None = None
    only_grow: bool = False

    @classmethod
    def of(cls, size_in_gb: float | None, threshold: float | None, *, default: float) -> Target:
        """The target that --size_in_gb (GiB) and --threshold name; the threshold wins.

        Args:
            default: GiB, where neither was named. What nobody asked for drops nothing.
        """
        if threshold is not None:
            return cls(share=threshold)
        return cls(
            size=int((default if size_in_gb is None else size_in_gb) * GIB), only_grow=size_in_gb is None
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as it is now.

    Attributes:
        id: names it for good.
        directory: our data directory on it.
        device: number of its filesystem; disks with one number share their space.
        total, free: bytes of the filesystem, and those that we may still write.
        named: whether the operator named it this time.
    """

    id: str
    directory: Path
    device: int
    total: int
    free: int
    named: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """A sector that is on a disk, or was.

    Attributes:
        sealed: whether it is trusted; otherwise it is quarantined.
        on_disk: whether its file takes up space.
        slots: whether clients' shards have the place of some of it.
    """

    index: int
    disk: str
    sealed: bool = True
    on_disk: bool = True
    slots: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A sector index and the id of the disk that it is on."""

    index: int
    disk: str


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What the plan means for one disk, in sectors and bytes."""

    disk: Disk
    headroom: int
    keep: int
    seal: int
    remove: int
    free_after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and everything there is to show about it.

    Attributes:
        keep: sealed sectors that stay.
        reseal: damaged sectors to seal again in their place.
        add: new sectors.
        remove: sectors to drop.
        wanted: how many sectors the target comes to.
    """

    profile: Profile
    keep: tuple[Place, ...]
    reseal: tuple[Place, ...]
    add: tuple[Place, ...]
    remove: tuple[Place, ...]
    wanted: int
    disks: tuple[DiskPlan, ...]

    @property
    def to_seal(self) -> tuple[Place, ...]:
        """Every sector that has to be sealed, in ascending index."""
        return tuple(sorted(self.reseal + self.add, key=lambda place: place.index))

    @property
    def sectors(self) -> int:
        """How many there will be."""
        return len(self.keep) + len(self.reseal) + len(self.add)

    @property
    def size(self) -> int:
        """Bytes that they will have."""
        return self.sectors * self.profile.size

    @property
    def short_by(self) -> int:
        """Sectors that the target asks for and the disks have no room for."""
        return max(self.wanted - self.sectors, 0)

    @property
    def changes(self) -> bool:
        return bool(self.reseal or self.add or self.remove)


class _Space:
    """Bytes above the headroom on each filesystem, as sectors are put on and taken off."""

    def __init__(self, profile: Profile, disks: Sequence[Disk], headroom: Headroom) -> None:
        self._size = profile.size
        self._database = profile.chunks * DATABASE_PER_CHUNK
        self._device = {disk.id: disk.device for disk in disks}
        self._first = disks[0].device
        self.room = {disk.device: disk.free - headroom.of(disk.total) for disk in disks}

    def take(self, disk: str) -> bool:
        """Take room for a sector; False, and nothing is taken, where there is none."""
        device = self._device[disk]
        needed = {device: self._size}
        needed[self._first] = needed.get(self._first, 0) + self._database
        if any(self.room[place] < size for place, size in needed.items()):
            return False
        for place, size in needed.items():
            self.room[place] -= size
        return True

    def of(self, disk: str) -> int:
        return self.room[self._device[disk]]


def make_plan(
    profile: Profile, disks: Sequence[Disk], held: Sequence[Held], target: Target, headroom: Headroom
) -> Plan:
    """The plan for disks with these sectors on them.

    Args:
        disks: the named ones in the operator's order (the database is on the first), then any others that
            hold sectors.

    Raises:
        UsageError: the target is above zero and less than one sector.
        NoSpaceError: not one sector fits.
    """
    wanted = max(_wanted(profile, disks, held, target), len(held) if target.only_grow else 0)
    named = {disk.id for disk in disks if disk.named}
    movable = [sector for sector in held if sector.disk in named and not sector.slots]
    surplus = max(len(held) - wanted, 0)
    # What takes no space goes first, since nothing else may fit in its place; then what is damaged.
    removed = sorted(movable, key=lambda sector: (sector.sealed, sector.on_disk, -sector.index))[:surplus]
    gone = {sector.index for sector in removed}
    left = [sector for sector in held if sector.index not in gone]

    space = _Space(profile, disks, headroom)
    damaged = [sector for sector in left if not sector.sealed and sector.disk in named]
    reseal = [sector for sector in damaged if sector.on_disk or space.take(sector.disk) or sector.slots]
    removed += [sector for sector in damaged if sector not in reseal]
    keep = [sector for sector in left if sector not in damaged]
    used = {sector.index for sector in held}
    missing = wanted - len(keep) - len(reseal)
    add = list(_place(missing, (i for i in count() if i not in used), sorted(named), disks, space))
    plan = Plan(
        profile,
        _places(keep),
        _places(reseal),
        tuple(add),
        _places(removed),
        wanted,
        _disk_plans(profile, disks, _places(keep), [*_places(reseal), *add], removed, held, headroom),
    )
    if wanted and not plan.sectors:
        raise _no_room(profile, plan)
    return plan


def _places(sectors: Sequence[Held]) -> tuple[Place, ...]:
    return tuple(Place(s.index, s.disk) for s in sorted(sectors, key=lambda sector: sector.index))


def _wanted(profile: Profile, disks: Sequence[Disk], held: Sequence[Held], target: Target) -> int:
    if target.share is not None:
        named = {disk.id: disk.device for disk in disks if disk.named}
        free = {disk.device: disk.free for disk in disks if disk.named}
        ours = sum(1 for sector in held if sector.on_disk and sector.disk in named) * profile.size
        space = sum(free.values()) + ours
        if (wanted := int(target.share * space) // profile.size) or not target.share:
            return wanted
        raise NoSpaceError(
            f"--threshold {target.share} of the {size_text(space)} that are free or ours is less than "
            f"one sector of {size_text(profile.size)}",
            remedy="Free space, name another disk with --db_root_path, or raise the threshold",
        )
    size = target.size or 0
    if 0 < size < profile.size:
        raise UsageError(
            f"--size_in_gb asks for {size_text(size)}, one sector has {size_text(profile.size)}",
            remedy="Ask for a sector or more",
        )
    return size // profile.size


def _place(
    missing: int, indices: Iterator[int], named: Sequence[str], disks: Sequence[Disk], space: _Space
) -> Iterator[Place]:
    """Put sectors on the disk with the most room, as long as one has any; of equals, on the emptier."""
    order = {disk.id: number for number, disk in enumerate(disks)}
    heap = [(-space.of(disk), 0, order[disk], disk) for disk in named]
    heapq.heapify(heap)
    while missing > 0 and heap:
        room, placed, number, disk = heapq.heappop(heap)
        if -room != space.of(disk):  # another disk on its filesystem has taken some
            heapq.heappush(heap, (-space.of(disk), placed, number, disk))
        elif space.take(disk):
            heapq.heappush(heap, (-space.of(disk), placed + 1, number, disk))
            missing -= 1
            yield Place(next(indices), disk)


def _disk_plans(
    profile: Profile,
    disks: Sequence[Disk],
    keep: Sequence[Place],
    seal: Sequence[Place],
    remove: Sequence[Held],
    held: Sequence[Held],
    headroom: Headroom,
) -> tuple[DiskPlan, ...]:
    there = {sector.index for sector in held if sector.on_disk}
    grows: dict[int, int] = {disk.device: 0 for disk in disks}
    device = {disk.id: disk.device for disk in disks}
    for place in seal:
        grows[device[place.disk]] += profile.size * (place.index not in there)
    for sector in remove:
        grows[device[sector.disk]] -= profile.size * sector.on_disk
    return tuple(
        DiskPlan(
            disk,
            headroom.of(disk.total),
            sum(place.disk == disk.id for place in keep),
            sum(place.disk == disk.id for place in seal),
            sum(sector.disk == disk.id for sector in remove),
            disk.free - grows[disk.device],
        )
        for disk in disks
    )


def _no_room(profile: Profile, plan: Plan) -> NoSpaceError:
    where = "; ".join(
        f"{d.disk.directory.parent} has {size_text(d.disk.free)} free, "
        f"of which {size_text(d.headroom)} stay free"
        for d in plan.disks
        if d.disk.named
    )
    return NoSpaceError(
        f"no room for one sector of {size_text(profile.size)}: {where}",
        remedy="Free space, name another disk with --db_root_path, or lower --headroom",
    )


def size_text(size: int) -> str:
    """Bytes as people read them: 1.50 GiB, 4 MiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:g} MiB"
