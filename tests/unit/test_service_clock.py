"""A clock that jumps ends nothing."""

from __future__ import annotations

import asyncio
import os
import time

from tensorage.chain.wallet import Hotkey
from tensorage.gateway.schema import Issuer
from tensorage.gateway.store import FileStore
from tensorage.gateway.sweep import Sweep
from tensorage.keyauth import SigningKey
from tensorage.service.clock import HOLD_SECONDS, JUMP_SECONDS, EvenClock
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.file_calls import MinerCalls

YEAR = 365 * 86_400


class Clocks:
    """A clock that can be put, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = time.time(), 1000.0

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def even(self) -> EvenClock:
        return EvenClock("files", lambda: self.wall, lambda: self.steady)


def test_time_that_goes_by_is_believed_however_long_and_a_jump_is_not_for_some_hours(caplog):
    clocks = Clocks()
    clock = clocks.even()
    for seconds in (0, 60, YEAR):
        clocks.go(seconds)
        clocks.wall += JUMP_SECONDS / 2
        assert clock.is_even()
    for jump in (YEAR, -YEAR):
        clocks.wall += jump
        assert not clock.is_even()
        clocks.go(HOLD_SECONDS - 1)
        assert not clock.is_even()
        assert len(caplog.records) == 1 and "jumped" in caplog.text
        caplog.clear()
        clocks.go(1)
        assert clock.is_even()


def test_a_clock_that_is_a_year_ahead_for_a_minute_ends_no_file(tmp_path):
    clocks = Clocks()
    with FileStore(
        tmp_path / "files.sqlite", Issuer(bytes(32), 1, Hotkey.from_uri("//V").public_key)
    ) as store:
        account = store.add_account("alice", "key", os.urandom(32), 1 << 30, int(clocks.wall)).id
        access = SigningKey(os.urandom(32)).public_key
        now = int(clocks.wall)
        file = store.create_file(account, access, 1, 0, now + 30 * 86_400, now)

        async def ends() -> None:
            sweep = Sweep(
                store,
                MinerCalls(Dendrite(None)),
                lambda: None,
                clock=lambda: clocks.wall,
                believed=clocks.even().is_even,
            )
            clocks.wall += YEAR
            await sweep.end()
            clocks.wall -= YEAR
            clocks.go(60)
            await sweep.end()
            assert store.file(file.id) == file
            clocks.go(HOLD_SECONDS + 86_400)  # an upload without progress
            await sweep.end()
            assert store.file(file.id) is None

        asyncio.run(ends())
