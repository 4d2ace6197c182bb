"""What the attacks share: the subnet of the validator's tests, and two sealed sectors of 1 GiB."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The attacks run on the subnet that the validator's own tests run on.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from big_sector import ADVERSARY, YARDSTICK, BigMiner, BigSector, Contest
from validator_net import subnet

from tensorage.receipts import Verdict


@pytest.fixture(scope="session")
def big(
    tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[Contest]:
    """Two sectors of 1 GiB on disk, and a ledger in which the honest one was audited already.

    The deadline is 4 s, or less on a machine that seals faster than 10 s: the figure that counts is how many
    deadlines a seal takes, and it is recorded with the results.
    """
    directory = tmp_path_factory.mktemp("big")
    sectors = [BigSector(directory, name) for name in (ADVERSARY, YARDSTICK)]
    seal_seconds = min(sector.seal_seconds for sector in sectors)
    contest = Contest(directory, *sectors, deadline=min(4.0, 0.4 * seal_seconds))
    record_testsuite_property("seal_seconds", round(seal_seconds, 2))
    record_testsuite_property("deadline_seconds", round(contest.deadline, 2))
    print(f"a sector of 1 GiB takes {seal_seconds:.2f} s of a core; the deadline is {contest.deadline:.2f} s")

    async def audited() -> None:
        honest = BigMiner(YARDSTICK, contest.yardstick)
        honest.commit(90)
        async with subnet(directory, honest, parameters=contest.parameters) as net:
            for _ in range(2):
                await net.round()
            assert net.of(honest).counts == {Verdict.PASSED: 2}  # a challenge and an audit
            assert net.of(honest).standing.credited_bytes == contest.yardstick.size

    asyncio.run(audited())
    yield contest
    for sector in sectors:
        sector.close()
