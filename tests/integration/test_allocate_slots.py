"""Slots under kill -9 at any instant, and under any order of what can happen to them."""

import atexit
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from allocator_data import ME, fill, flip, is_sealed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shard_data import Alone, answers_all, bytes_kept, bytes_of, grant, put, root_with, sign, ticket
from shard_process import leaves_of

from tensorage.allocator.shards import ShardStore
from tensorage.allocator.slots import Pending
from tensorage.allocator.upkeep import DataDirectory
from tensorage.commitment import check_listing
from tensorage.errors import RequestError
from tensorage.shard import chunk_root
from tensorage.ticket import SignedTicket

NOW = 1_000_000
PHASES = ("upload", "commit", "settle", "remove", "give back")


def kill_in(root: Path, first: int, phase: str, delay: float) -> tuple[set[int], set[int]]:
    """Run the process until `delay` seconds after a phase began, and kill it.

    Returns:
        The numbers of the shards that it has promised, and of those that it has taken back since.
    """
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("shard_process.py")), str(root), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    )
    promised: set[int] = set()
    open_: set[int] = set()
    end = time.monotonic() + 60
    try:
        for line in process.stdout:
            assert time.monotonic() < end
            promised_or_not(line, promised, open_)
            if line == f"phase {phase}\n":
                break
        else:
            pytest.fail("the process ended by itself")
        time.sleep(delay)
    finally:
        process.kill()
        rest, _ = process.communicate()
    for line in rest.splitlines(keepends=True):
        promised_or_not(line, promised, open_)
    return promised, open_


def promised_or_not(line: str, promised: set[int], open_: set[int]) -> None:
    """Note what one line of the process promises."""
    if not line.endswith("\n"):
        return
    word, _, rest = line.strip().partition(" ")
    if word in ("stored", "restored"):
        promised.add(int(rest))
        open_.discard(int(rest))
    elif word == "removing":
        promised.discard(int(rest))
        open_.add(int(rest))


def test_killed_at_any_instant_it_keeps_what_it_promised_and_answers_for_what_it_committed(tmp_path):
    draw = random.Random(3)
    with DataDirectory([tmp_path], ME) as data:
        fill(data, 40)
        grant(data, 40)
        data.store.commit(sign, 1)
    promised: set[int] = set()
    for round_number in range(7):
        phase = PHASES[round_number % len(PHASES)]
        delay = draw.uniform(0, 2.5 if phase == "give back" else 0.08)
        new, gone = kill_in(tmp_path, 1000 * (round_number + 1), phase, delay)
        promised |= new
        with DataDirectory([tmp_path], ME) as data, ShardStore(data.store, reserve=0) as shards:
            with data.filling():
                found = data.recover()
                assert found.shards == found.lost == found.damaged == ()
                assert data.verify(1) == [] and data.verify_shards() == []
            for number in promised:
                signed = ticket(number, leaves_of(number))
                assert bytes_kept(shards, signed) == bytes_of(number, leaves_of(number))
            assert answers_all(data)
            for number in gone:  # taken back, or begun to be: whichever, it is whole or over
                row = shards.record(ticket(number, leaves_of(number)).ticket.hash)
                if row.live:
                    bytes_kept(shards, row.signed)
            known = {path.name for d in data.directories for path in (d / "shards").glob("??/*")}
            assert not {name for name in known if name.endswith(".coming")}
    with DataDirectory([tmp_path], ME) as data, ShardStore(data.store, reserve=0) as shards:
        end_everything(data, shards)
        assert all(is_sealed(data, sector) for sector in data.store.sectors("sealed"))
        assert data.store.counts().sealed == 40 and not list(tmp_path.rglob("*.shard"))


def end_everything(data: DataDirectory, shards: ShardStore) -> None:
    """Remove all shards and give their slots back, to the last commitment that has one."""
    tickets = [
        row[0] for row in data.store.read(lambda db: db.execute("SELECT ticket FROM shards").fetchall())
    ]
    for name in tickets:
        if shards.record(name).live:
            shards.remove(name, NOW)
    shards.expire(NOW + 8 * 86_400)
    with data.filling():
        assert data.give_back(1)
    while data.store.commit(sign, 1) is not None:
        data.settle()
    data.settle()
    assert data.store.pending() == Pending(0, 0, 0) and shards.slots() == []


@dataclass
class Taken:
    """What the model knows of a slot."""

    number: int
    since: int | None = None
    until: int | None = None
    ended: bool = False
    hole: bool = False

    @property
    def stands(self) -> bool:
        """Whether a commitment made now has it."""
        return not self.ended or self.hole


SECTORS = 3
#: Where a flush costs nothing, if there is such a place: it is done very often, and nothing is cut off here.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_templates: list[Path] = []
_roots: dict[tuple[int, int | None], bytes] = {}


def root_of(index: int, number: int | None) -> bytes:
    """The root of a sector, with the shard of that number or without."""
    if (index, number) not in _roots:
        shards = {} if number is None else {index: ticket(number, leaves_of(number))}
        _roots[index, number] = root_with(index, shards)
    return _roots[index, number]


class SlotMachine(RuleBasedStateMachine):
    """Slots by their rules, beside a model of what each commitment has."""

    @initialize()
    def begin(self):
        if not _templates:
            _templates.append(Path(tempfile.mkdtemp(dir=FAST)))
            atexit.register(shutil.rmtree, _templates[0])
            with Alone([_templates[0]], ME) as data:
                fill(data, SECTORS)
                grant(data, 1000)
        self.root = Path(tempfile.mkdtemp(dir=FAST))
        shutil.copytree(_templates[0], self.root, dirs_exist_ok=True)
        self.data = Alone([self.root], ME)
        self.shards = ShardStore(self.data.store, reserve=0)
        self.slots: dict[int, Taken] = {}  # by sector: here each has one chunk
        self.commitments: list[dict[int, int | None]] = []
        self.trash: set[int] = set()
        self.number = 0

    def name(self, number: int) -> bytes:
        return ticket(number, leaves_of(number)).ticket.hash

    def live(self) -> list[int]:
        return [slot.number for slot in self.slots.values() if not slot.ended]

    @precondition(lambda self: len(self.slots) < SECTORS)
    @rule()
    def store_one(self):
        self.number += 1
        signed = ticket(self.number, leaves_of(self.number))
        put(self.shards, signed, now=NOW)
        query = "SELECT sector FROM slots WHERE ticket = ?"
        (index,) = self.data.store.read(lambda db: db.execute(query, (signed.ticket.hash,)).fetchone())
        assert index not in self.slots
        self.slots[index] = Taken(self.number)

    @precondition(lambda self: self.live())
    @rule(pick=st.integers(0, SECTORS - 1))
    def remove_or_restore(self, pick):
        live = self.live()
        number = live[pick % len(live)]
        if number in self.trash:
            self.shards.restore(self.name(number), NOW)
            self.trash.remove(number)
        else:
            self.shards.remove(self.name(number), NOW)
            self.trash.add(number)

    @precondition(lambda self: self.trash)
    @rule()
    def empty_the_trash(self):
        assert self.shards.expire(NOW + 7 * 86_400) == (0, len(self.trash))
        for index, slot in list(self.slots.items()):
            if slot.number in self.trash:
                slot.ended = True
                if slot.since is None:
                    del self.slots[index]
        self.trash.clear()

    @precondition(lambda self: len(self.slots) == SECTORS)
    @rule()
    def find_no_chunk(self):
        with pytest.raises(RequestError) as error:
            put(self.shards, ticket(0), now=NOW)
        assert error.value.kind == "full"

    @rule()
    def go_on_for_a_while(self):
        self.commit()
        self.settle()
        self.commit()
        self.settle()

    @rule()
    def commit(self):
        has = {index: self.standing(index) for index in range(SECTORS)}
        last = len(self.commitments)
        lingering = any(
            (slot.until == last) if slot.ended else (slot.since == last > 1 and not slot.hole)
            for slot in self.slots.values()
        )
        signed = self.data.store.commit(sign, 1)
        if self.commitments and has == self.commitments[-1] and not lingering:
            assert signed is None
            return
        assert signed is not None
        self.commitments.append(has)
        for index, slot in list(self.slots.items()):
            if slot.since is None:
                slot.since = last + 1
            if not slot.stands and slot.until is None:
                slot.until = last + 1
            if slot.until is not None and slot.until <= last:
                del self.slots[index]

    def standing(self, index: int) -> int | None:
        slot = self.slots.get(index)
        return slot.number if slot is not None and slot.stands else None

    @rule()
    def settle(self):
        self.data.settle()
        oldest = max(1, len(self.commitments) - 1)
        for index, slot in self.slots.items():
            if not slot.ended and slot.since is not None and slot.since <= oldest:
                slot.hole = True
                assert not is_sealed(self.data, self.data.store.sector(index))
        kept = {path.stem for path in self.root.rglob("*.shard")}
        assert kept == {self.name(slot.number).hex() for slot in self.slots.values()}

    @precondition(lambda self: any(slot.hole and slot.ended for slot in self.slots.values()))
    @rule()
    def give_back(self):
        with self.data.filling():
            assert self.data.give_back()
        for slot in self.slots.values():
            slot.hole = slot.hole and not slot.ended

    @rule(index=st.integers(0, SECTORS - 1), gone=st.booleans())
    def lose_a_sector(self, index, gone):
        path = self.data.store.sector(index).path
        slot = self.slots.get(index)
        if slot is not None and (gone or (slot.hole and leaves_of(slot.number) == 1024)):
            path.unlink()  # of a file that is all hole, no byte counts
        else:
            flip(path, -1)
        with self.data.filling():
            assert [damage.sector.index for damage in self.data.verify()] == [index]
            self.data.recover()
            assert self.data.fill()
        if index in self.slots:
            self.slots[index].hole = False

    @rule()
    def start_again(self):
        self.shards.close()
        self.data.close()
        self.data = Alone([self.root], ME)
        self.shards = ShardStore(self.data.store, reserve=0)

    def do_something(self, draw: random.Random) -> None:
        """One of the above that can be done now, those that make a life more often."""
        steps = [self.commit, self.commit, self.commit, self.settle, self.settle, self.start_again]
        steps += [self.store_one] * 3 if len(self.slots) < SECTORS else [self.find_no_chunk]
        steps += [lambda: self.lose_a_sector(draw.randrange(SECTORS), draw.random() < 0.5)]
        if self.live():
            steps += [lambda: self.remove_or_restore(draw.randrange(SECTORS))] * 2
        if self.trash:
            steps += [self.empty_the_trash] * 2
        if any(slot.hole and slot.ended for slot in self.slots.values()):
            steps += [self.give_back] * 2
        draw.choice(steps)()

    @invariant()
    def every_commitment_that_is_answered_says_what_the_model_says(self):
        if not getattr(self, "commitments", None):
            return
        last = len(self.commitments)
        for seq in range(max(1, last - 1), last + 1):
            has = self.commitments[seq - 1]
            listed = self.data.store.listing(seq)
            assert listed == [(index, root_of(index, has[index])) for index in range(SECTORS)]
            check_listing(self.data.store.commitment(seq).commitment, listed)
        assert answers_all(self.data, step=192) == list(range(max(1, last - 1), last + 1))
        tickets = [SignedTicket.decode(raw).ticket for _, _, raw in self.shards.slots()]
        has = self.commitments[-1]
        assert [t.serial for t in tickets] == [has[index] for index in range(SECTORS) if has[index]]

    @invariant()
    def nothing_that_was_promised_is_lost(self):
        for number in self.live() if hasattr(self, "slots") else []:
            signed = ticket(number, leaves_of(number))
            assert bytes_kept(self.shards, signed) == bytes_of(number, leaves_of(number))

    @invariant()
    def a_transition_folds_both_ways(self):
        if not getattr(self, "commitments", None):
            return
        last = len(self.commitments)
        for index in range(SECTORS):
            for seq in range(1, last + 1):
                known = self.shards.transition(index, seq)
                was, now = self.commitments[seq - 1][index], self.commitments[-1][index]
                assert (known.before, known.after) == (root_of(index, was), root_of(index, now))
                assert len(known.changed) == (was is None and now is not None)
                for change in known.changed:
                    leaves = leaves_of(now)
                    root = ticket(now, leaves).ticket.shard_root
                    assert chunk_root(change.node, leaves, change.siblings) == known.before
                    assert chunk_root(root, leaves, change.siblings) == known.after

    def teardown(self):
        if hasattr(self, "shards"):
            self.shards.close()
            self.data.close()
            shutil.rmtree(self.root)


TestSlots = SlotMachine.TestCase
TestSlots.settings = settings(
    max_examples=500 if os.environ.get("HYPOTHESIS_PROFILE") == "hunt" else 5,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("seed", range(2))
def test_a_long_life_of_slots(seed):
    draw = random.Random(seed)
    machine = SlotMachine()
    machine.begin()
    try:
        for _ in range(90):
            machine.do_something(draw)
            machine.every_commitment_that_is_answered_says_what_the_model_says()
            machine.nothing_that_was_promised_is_lost()
            machine.a_transition_folds_both_ways()
        assert len(machine.commitments) > 10 and machine.number > 6
    finally:
        machine.teardown()
