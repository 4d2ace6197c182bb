"""How much a miner answers at once: nobody can take all of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tensorage.challenge import MAX_HOPS
from tensorage.errors import RequestError
from tensorage.miner.answers import CALLER_CHALLENGES, MOST_HOPS, Answers
from tensorage.miner.blocks import Blocks
from tensorage.miner.priority import Priority
from tensorage.transport.axon import Call
from tensorage.transport.messages import ChallengeMessage


class Caller:
    def __init__(self, name: str) -> None:
        self.hotkey = name
        self.public_key = name.encode().ljust(32, b"\0")


class SlowDisk:
    """A reader that finds no commitment, and only once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def committed(self, commitment_hash: bytes) -> None:
        self.go.wait(30)


@pytest.fixture
async def miner():
    disk = SlowDisk()
    answers = Answers(
        disk,
        netuid=1,
        miner=bytes(32),
        sign=bytes,
        blocks=Blocks(lambda number: asyncio.sleep(0, bytes(32))),
        priority=Priority(lambda: None, lambda: None),
        see_to=lambda index: True,
        see_to_slots=lambda: None,
    )
    yield answers, disk
    disk.go.set()
    answers.close()


def ask(answers: Answers, who: str, hops: int) -> asyncio.Task[bytes]:
    message = ChallengeMessage(commitment=bytes(32), block_number=1, block_hash=bytes(32), round=1, hops=hops)
    return asyncio.ensure_future(
        answers.challenge(Call(Caller(who), {}, {}, message.model_dump_json().encode()))
    )


async def kind_of(task: asyncio.Task[bytes]) -> str:
    with pytest.raises(RequestError) as refused:
        await asyncio.wait_for(task, 20)
    return refused.value.kind


async def test_one_validator_that_asks_for_the_most_cannot_keep_others_waiting(miner):
    answers, disk = miner
    greedy = [ask(answers, "greedy", MAX_HOPS) for _ in range(20)]
    assert [await kind_of(task) for task in greedy[1:]] == ["rate_limited"] * 19
    small = [ask(answers, "small", 1) for _ in range(CALLER_CHALLENGES + 1)]
    assert await kind_of(small[-1]) == "rate_limited"
    disk.go.set()
    assert [await kind_of(task) for task in (greedy[0], *small[:-1])] == ["unknown"] * 3
    assert await kind_of(ask(answers, "greedy", MAX_HOPS)) == "unknown"


async def test_no_more_is_taken_on_than_is_read_in_time(miner):
    answers, disk = miner
    taken = [ask(answers, f"v{number}", MAX_HOPS) for number in range(MOST_HOPS // MAX_HOPS)]
    assert await kind_of(ask(answers, "one more", 1)) == "rate_limited"
    disk.go.set()
    assert {await kind_of(task) for task in taken} == {"unknown"}
    assert await kind_of(ask(answers, "one more", 1)) == "unknown"
