"""Plans and quotas: what holds for any disks, any sectors on them and any stakes."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tensorage.allocator.partition import quotas
from tensorage.allocator.plan import DATABASE_PER_CHUNK, Disk, Headroom, Held, Target, make_plan
from tensorage.errors import UsageError
from tensorage.seal import DEV

SIZE = DEV.size
WHOLE = SIZE + DATABASE_PER_CHUNK  # what a sector takes on the disk of the database
TARGETS = st.integers(0, 40).map(lambda n: Target(size=n * SIZE)) | st.floats(0, 1).map(
    lambda share: Target(share=share)
)
HEADROOMS = st.floats(0, 0.9).map(lambda share: Headroom(share=share)) | st.integers(0, 30 * SIZE).map(
    lambda size: Headroom(size=size)
)
STAKES = st.dictionaries(st.text("abc", max_size=4), st.floats(0, 1e12) | st.integers(0, 10**30), max_size=12)


@st.composite
def situations(draw):
    """Disks, some on one filesystem, and sectors on them."""
    devices = draw(st.lists(st.tuples(st.integers(1, 60 * SIZE), st.floats(0, 1)), min_size=1, max_size=3))
    disks = []
    for number in range(draw(st.integers(1, 4))):
        device = draw(st.integers(0, len(devices) - 1))
        total, share = devices[device]
        named = number == 0 or draw(st.booleans())
        disks.append(Disk(f"d{number}", Path(f"/{number}/sn"), device, total, int(total * share), named))
    disks.sort(key=lambda disk: not disk.named)
    indices = draw(st.sets(st.integers(0, 40), max_size=20))
    held = [
        Held(
            index,
            draw(st.sampled_from(disks)).id,
            sealed := draw(st.booleans()),
            sealed or draw(st.booleans()),
            draw(st.integers(0, 3)) == 0,
        )
        for index in sorted(indices)
    ]
    return disks, held


@given(situations(), TARGETS, HEADROOMS)
def test_a_plan_keeps_its_rules(situation, target, headroom):
    disks, held = situation
    try:
        plan = make_plan(DEV, disks, held, target, headroom)
    except UsageError as error:
        assert error.remedy
        return
    named = {disk.id for disk in disks if disk.named}
    before = {sector.index: sector for sector in held}
    kept = [place.index for place in plan.keep + plan.reseal]
    added = [place.index for place in plan.add]
    removed = [place.index for place in plan.remove]

    # Nobody's index twice, new ones the lowest that are free, on disks that are named.
    assert len({*kept, *added, *removed}) == len(kept) + len(added) + len(removed)
    free = [index for index in range(100) if index not in before]
    assert added == free[: len(added)]
    assert {place.disk for place in (*plan.add, *plan.reseal, *plan.remove)} <= named
    # Who stays stays in its place; sectors go only for a smaller target, from above, damaged ones first.
    assert all(before[place.index].disk == place.disk for place in (*plan.keep, *plan.reseal, *plan.remove))
    given_up = [index for index in removed if before[index].sealed or before[index].on_disk]
    assert not (given_up and (added or plan.sectors < plan.wanted))
    bare = {index for index, sector in before.items() if not sector.slots}  # none with clients' shards goes
    assert {*removed} <= bare
    if any(before[index].sealed for index in removed):
        assert all(before[place.index].disk not in named for place in plan.reseal if place.index in bare)
        lowest = min(index for index in removed if before[index].sealed)
        stay = [p for p in plan.keep if p.disk in named and before[p.index].sealed and p.index in bare]
        assert all(place.index < lowest for place in stay)
    # No filesystem that grows ends below its headroom.
    for device in {disk.device for disk in disks}:
        there = {disk.id for disk in disks if disk.device == device}
        new = [p for p in plan.add if p.disk in there]
        again = [p for p in plan.reseal if not before[p.index].on_disk and p.index in bare]
        new += [p for p in again if p.disk in there]
        grown = len(new) * SIZE
        if disks[0].device == device:
            grown += DATABASE_PER_CHUNK * (len(plan.add) + len(again))
        some = next(disk for disk in disks if disk.device == device)
        assert grown == 0 or some.free - grown >= headroom.of(some.total)
    # What the table shows adds up.
    assert sum(d.keep for d in plan.disks) == len(plan.keep)
    assert sum(d.seal for d in plan.disks) == len(plan.to_seal)
    assert sum(d.remove for d in plan.disks) == len(plan.remove)


@given(situations(), st.integers(1, 40), HEADROOMS)
def test_a_plan_that_was_carried_out_changes_nothing_more(situation, wanted, headroom):
    disks, held = situation
    assume(all(disk.named for disk in disks))
    try:
        plan = make_plan(DEV, disks, held, Target(size=wanted * SIZE), headroom)
    except UsageError:
        return
    assume(
        len(plan.reseal)
        == sum(not s.sealed for s in held)
        - sum(not s.sealed for s in held if s.index in {p.index for p in plan.remove})
    )
    slots = {sector.index for sector in held if sector.slots}
    after = [Held(p.index, p.disk, slots=p.index in slots) for p in (*plan.keep, *plan.reseal, *plan.add)]
    taken = {disk.id: 0 for disk in disks}
    for place in plan.to_seal:
        taken[place.disk] += SIZE
    full = [
        Disk(
            d.id,
            d.directory,
            d.device,
            d.total,
            max(
                d.free - sum(taken[o.id] for o in disks if o.device == d.device) - DATABASE_PER_CHUNK * 40, 0
            ),
        )
        for d in disks
    ]
    assert not make_plan(DEV, full, after, Target(size=wanted * SIZE), headroom).changes


@given(situations(), TARGETS, HEADROOMS)
def test_a_size_that_nobody_named_drops_nothing_that_takes_space(situation, target, headroom):
    disks, held = situation
    try:
        plan = make_plan(DEV, disks, held, replace(target, only_grow=True), headroom)
    except UsageError:
        return
    there = {sector.index for sector in held if sector.on_disk}
    assert not there & {place.index for place in plan.remove}
    assert plan.sectors >= len(there)


def test_the_disk_with_the_most_room_is_filled_first():
    disks = [
        Disk("small", Path("/a/sn"), 1, 10 * WHOLE, 3 * WHOLE + SIZE // 2),
        Disk("large", Path("/b/sn"), 2, 10 * WHOLE, 5 * WHOLE),
    ]
    plan = make_plan(DEV, disks, [], Target(size=4 * SIZE), Headroom(size=0))
    assert [place.disk for place in plan.add] == ["large", "large", "small", "large"]


def test_no_room_names_the_disk_and_what_is_free():
    disks = [Disk("a", Path("/mnt/a/sn"), 1, 100 * SIZE, 5 * SIZE)]
    with pytest.raises(UsageError, match=r"/mnt/a has 20 MiB free, of which 20 MiB stay free.*--headroom"):
        make_plan(DEV, disks, [], Target(size=SIZE), Headroom())


@pytest.mark.parametrize(
    ("text", "of_100_gib"), [("5%", 5), ("0%", 0), ("12.5%", 12.5), ("50", 50), ("0", 0), ("0.5", 0.5)]
)
def test_headroom_is_a_share_or_gib(text, of_100_gib):
    assert Headroom.parse(text).of(100 << 30) == of_100_gib * 2**30


@pytest.mark.parametrize("text", ["", "%", "5 %%", "100%", "-1", "-1%", "nan", "inf", "nan%", "much"])
def test_headroom_that_is_neither_is_refused(text):
    with pytest.raises(UsageError, match="--headroom"):
        Headroom.parse(text)


@given(STAKES, st.integers(0, 10**7))
def test_quotas_are_the_shares_rounded_and_use_up_every_chunk(stakes, chunks):
    result = quotas(stakes, chunks)
    assert result.keys() == stakes.keys()
    total = sum(Fraction(stake) for stake in stakes.values())
    if not total:
        assert not any(result.values())
        return
    assert sum(result.values()) == chunks
    for who, stake in stakes.items():
        exact = chunks * Fraction(stake) / total
        assert exact - 1 < result[who] < exact + 1
    for richer in stakes:
        for poorer in stakes:
            assert stakes[richer] <= stakes[poorer] or result[richer] >= result[poorer]


@given(st.dictionaries(st.text("abc", max_size=3), st.floats(0, 1e6), max_size=4), st.integers(0, 999))
def test_quotas_do_not_depend_on_the_order_or_the_unit_of_stakes(stakes, chunks):
    expected = quotas(stakes, chunks)
    for order in permutations(stakes.items()):
        assert quotas(dict(order), chunks) == expected
    assert quotas({who: 4 * stake for who, stake in stakes.items()}, chunks) == expected


def test_a_tie_goes_to_the_lower_address():
    assert quotas({"b": 1, "a": 1, "c": 1}, 4) == {"a": 2, "b": 1, "c": 1}


@pytest.mark.parametrize("stake", [-1, float("nan"), float("inf")])
def test_a_stake_that_is_no_amount_is_refused(stake):
    with pytest.raises(ValueError, match="stake of a"):
        quotas({"a": stake}, 4)
