"""What is decided about shards, whatever a stripe and its miners are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorage.encoding import sha256
from tensorage.gateway.health import fate
from tensorage.gateway.placement import Candidate
from tensorage.gateway.rebuild import MEMORY, column_leaves
from tensorage.gateway.repair import plan
from tensorage.gateway.rows import FileRow, ShardRow, StripeRow
from tensorage.seal import LEAF_SIZE
from tensorage.shard import SHARD_LEAVES


def file_of(k: int, m: int) -> FileRow:
    return FileRow(1, bytes(16), 1, bytes(32), bytes(32), bytes(32), 1, 1, k, m, 0, 0, 10, "stored", None)


def row_of(number: int, owner: int, state: str, health: str) -> ShardRow:
    return ShardRow(
        ticket=sha256(bytes([number, owner])),
        file=bytes(16),
        stripe=0,
        number=number,
        hotkey=f"miner {owner}",
        coldkey=f"owner {owner}",
        root=bytes(32),
        leaves=16,
        serial=number,
        signed=b"",
        issued=0,
        expires=10,
        state=state,  # type: ignore[arg-type]
        stored_ms=1,
        receipt=b"",
        health=health,  # type: ignore[arg-type]
        checked=None,
        failures=0,
        reason="",
        due=False,
        trashed=False,
        tell_at=0,
        tells=0,
    )


@st.composite
def stripes(draw: st.DrawFn) -> StripeRow:
    k, m = draw(st.integers(1, 5)), draw(st.integers(0, 6))
    file = file_of(k, m)
    numbers = draw(st.sets(st.integers(0, k + m - 1)))
    states = st.sampled_from(
        [("stored", "ok"), ("stored", "unchecked"), ("stored", "failed"), ("lost", "failed")]
    )
    shards = [row_of(number, number, *draw(states)) for number in sorted(numbers)]
    return StripeRow(file, 0, 16, tuple(shards))


candidates = st.lists(
    st.builds(
        lambda hotkey, owner, network, score, free: Candidate(
            f"miner {hotkey}", f"owner {owner}", f"network {network}", score, free
        ),
        st.integers(0, 30),
        st.integers(0, 20),
        st.integers(0, 3),
        st.floats(0, 1e12),
        st.integers(0, 2),
    ),
    max_size=25,
    unique_by=lambda candidate: candidate.hotkey,
)
hotkeys = st.sets(st.integers(0, 12).map(lambda number: f"miner {number}"), max_size=4)


@given(stripes(), candidates, hotkeys, st.binary(min_size=32, max_size=32))
def test_after_what_is_planned_no_owner_has_two_shards_and_nothing_sound_was_moved(
    stripe, candidates, leaving, seed
):
    moves = plan(stripe, candidates, leaving, lambda hotkey: "", seed)
    stored = {row.number: row for row in stripe.shards if row.state == "stored"}
    moved = {move.number for move in moves}
    assert len(moved) == len(moves)
    owners = [row.coldkey for number, row in stored.items() if number not in moved]
    if len(set(owners)) == len(owners):
        after = owners + [move.to.coldkey for move in moves]
        assert len(set(after)) == len(after)
    for move in moves:
        assert move.to.free_chunks > 0
        assert move.to.hotkey not in leaving
        assert move.to.hotkey not in {row.hotkey for row in stripe.shards}
        row = stored.get(move.number)
        if move.leaves is not None:
            assert row is not None
            assert move.leaves == row.hotkey
            assert row.hotkey in leaving
        elif row is not None:
            assert row.health == "failed"
            assert stripe.healthy < stripe.threshold


@given(stripes(), st.binary(min_size=32, max_size=32))
def test_with_enough_miners_nothing_that_is_lost_stays_so(stripe, seed):
    plenty = [Candidate(f"new {n}", f"new owner {n}", f"{n}", 1.0, 1) for n in range(20)]
    moves = plan(stripe, plenty, (), lambda hotkey: "", seed)
    moved = {move.number for move in moves}
    assert set(stripe.missing) <= moved
    if stripe.healthy < stripe.threshold:
        failed = {row.number for row in stripe.shards if (row.state, row.health) == ("stored", "failed")}
        assert failed <= moved
    # What is lost comes before what may come back.
    assert [move.number for move in moves][: len(stripe.missing)] == stripe.missing


@given(st.sampled_from(SHARD_LEAVES), st.integers(1, 256))
def test_memory_for_rebuilding_does_not_grow_with_the_number_of_shards(leaves, k):
    count = column_leaves(leaves, k)
    assert leaves % count == 0
    assert count & (count - 1) == 0
    assert count * LEAF_SIZE * k <= max(MEMORY, LEAF_SIZE * k)


@given(st.sampled_from(["ok", "wrong", "denied", "away", "gone"]), st.integers(0, 50), st.integers(2, 30))
def test_a_shard_is_lost_at_once_only_when_that_is_certain(kind, failures, lost_after):
    becomes = fate(kind, failures, lost_after)
    if kind == "ok":
        assert becomes == "ok"
    elif kind in ("wrong", "gone"):
        assert becomes == "lost"
    elif failures == 0:
        assert becomes == "asked again"
    elif kind == "away":
        assert becomes == ("lost" if failures + 1 >= lost_after else "failed")
    else:
        assert becomes == "lost"
