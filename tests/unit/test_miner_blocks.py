"""Which blocks a challenge may be about."""

from __future__ import annotations

import time

import pytest

from tensorage.chain.types import BlockRef
from tensorage.commitment import first_commitment
from tensorage.errors import ChainError, RequestError
from tensorage.miner.blocks import RECENT, Blocks, check_block

COMMITMENT = first_commitment(bytes(32), 1, bytes(32), 0, [(0, bytes(32))], 100)
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.mark.parametrize("number", [0, 99, 100])
def test_a_block_that_is_not_above_the_commitments_is_refused(number):
    with pytest.raises(RequestError, match="not above 100"):
        check_block(COMMITMENT, number, 101)


def test_a_stale_block_is_refused_and_a_recent_one_taken():
    head = 1000
    check_block(COMMITMENT, head - RECENT, head)
    with pytest.raises(RequestError, match="stale"):
        check_block(COMMITMENT, head - RECENT - 1, head)


def test_a_block_above_our_head_is_taken_since_we_may_be_behind():
    check_block(COMMITMENT, 5000, 1000)
    check_block(COMMITMENT, 5000, None)


def blocks_that_answer(answer: bytes | Exception, clock=time.monotonic) -> tuple[Blocks, list[int]]:
    asked: list[int] = []

    async def ask(number: int) -> bytes:
        asked.append(number)
        if isinstance(answer, Exception):
            raise answer
        return answer

    blocks = Blocks(ask, clock=clock)
    blocks.saw(BlockRef(7, OLD))
    return blocks, asked


async def test_a_block_of_another_chain_is_refused_after_asking_ours():
    blocks, asked = blocks_that_answer(OLD)
    with pytest.raises(RequestError, match="block 7 has the hash"):
        await blocks.check_hash(7, NEW)
    assert asked == [7]


async def test_wrong_hashes_do_not_have_the_chain_asked_for_each():
    clock = [100.0]
    blocks, asked = blocks_that_answer(OLD, lambda: clock[0])
    for number in range(20):
        with pytest.raises(RequestError, match="block 7 has the hash"):
            await blocks.check_hash(7, bytes([number]) * 32)
    assert asked == [7]
    clock[0] += 10
    with pytest.raises(RequestError):
        await blocks.check_hash(7, NEW)
    assert asked == [7, 7]


async def test_a_block_that_replaced_the_one_we_saw_is_taken():
    blocks, asked = blocks_that_answer(NEW)
    await blocks.check_hash(7, NEW)
    await blocks.check_hash(7, NEW)
    assert asked == [7]


async def test_a_chain_that_is_away_makes_nobody_suffer():
    blocks, _ = blocks_that_answer(ChainError("away"))
    await blocks.check_hash(7, NEW)


async def test_a_block_that_we_never_saw_is_not_asked_for():
    blocks, asked = blocks_that_answer(OLD)
    await blocks.check_hash(8, NEW)
    assert asked == []


def test_what_is_remembered_is_bounded():
    blocks, _ = blocks_that_answer(OLD)
    for number in range(3 * RECENT):
        blocks.saw(BlockRef(number, OLD))
    assert len(blocks._hashes) == RECENT
    assert blocks.head == 3 * RECENT - 1
