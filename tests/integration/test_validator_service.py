"""The validator as a service: on a devnet, against real miners, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from chain_net import Faults, Net, eventually, permitted
from miner_net import MINER, OTHER, VALIDATOR, mining, state_of

from tensorage.chain.auth import verify
from tensorage.chain.devnet import faucet
from tensorage.chain.network import open_chain
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import Hotkey
from tensorage.hashchain import check_chain
from tensorage.transport.dendrite import Dendrite, Peer, Refused
from tensorage.validator import export
from tensorage.validator.parameters import Parameters
from tensorage.validator.pool import SealPool
from tensorage.validator.service import ValidatorService, ValidatorSettings
from tensorage.validator.status import read_status

LEAVES_WITHIN = 5.0
FAST = Parameters(hops=8, round_seconds=0.3, audit_seconds=1.0, profiles=frozenset({0}), private=True)


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite").producing(every=0.1) as net:
        await net.populate()
        async with net.chain() as chain:
            await permitted(chain, VALIDATOR)
        yield net


@asynccontextmanager
async def validating(net, root: Path, *, opener=open_chain, **changes):
    """A validator inside the test's event loop; ends with the block."""
    settings = ValidatorSettings(
        **{"chain": net.settings, "root": root, "host": "127.0.0.1", "port": 0, "parameters": FAST, **changes}
    )
    service = ValidatorService(settings, VALIDATOR, opener=opener)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        await eventually(lambda: service.axon is not None or task.done())
        if task.done():
            task.result()
        yield service
        assert not task.done()
    finally:
        stop.set()
        await asyncio.wait_for(task, LEAVES_WITHIN)


def scored(service: ValidatorService) -> dict[str, float]:
    assert service.ledger_path is not None
    return {row.hotkey: row.weight for row in read_status(service.ledger_path) if row.score > 0}


async def test_two_honest_miners_are_paid_by_their_size_and_each_gets_its_own_receipts(net, tmp_path):
    async with (
        mining(net, tmp_path / "one", 1),
        mining(net, tmp_path / "two", 3, key=OTHER),
        validating(net, tmp_path / "validator") as service,
        net.chain() as chain,
    ):
        await eventually(lambda: len(scored(service)) == 2, 60)
        shares = scored(service)
        assert shares[OTHER.ss58] == pytest.approx(0.75, abs=0.1)
        await eventually(lambda: len(weights_of(service)) == 2, 30)

        async def updated() -> bool:
            ours = (await chain.metagraph(max_age=0)).by_hotkey(VALIDATOR.ss58)
            return ours is not None and ours.last_update > ours.registered_at

        await eventually(updated, 10)
        uid = (await chain.metagraph(max_age=0)).by_hotkey(MINER.ss58)
        assert uid is not None
        assert service.axon is not None
        peer = Peer(VALIDATOR.ss58, Endpoint("127.0.0.1", service.axon.port))
        async with Dendrite(MINER, allow_private=True) as dendrite:
            page = (await dendrite.receipts(peer)).signed()
        assert page
        assert {receipt.miner for receipt, _ in page} == {MINER.public_key}
        assert all(verify(VALIDATOR.public_key, receipt.hash, signature) for receipt, signature in page)
        async with Dendrite(Hotkey.from_uri("//Stranger"), allow_private=True) as dendrite:
            with pytest.raises(Refused, match="not registered"):
                await dendrite.receipts(peer)


def weights_of(service: ValidatorService) -> dict[int, float]:
    """The weights that were last set, by uid, as the ledger has them."""
    assert service.ledger_path is not None
    with closing(sqlite3.connect(f"{service.ledger_path.as_uri()}?mode=ro", uri=True)) as db:
        row = db.execute(
            "SELECT weights FROM weights WHERE status = 'set' ORDER BY id DESC LIMIT 1"
        ).fetchone()
    return {int(uid): share for uid, share in json.loads(row[0]).items()} if row else {}


async def test_a_chain_that_goes_away_is_told_once_and_rounds_go_on_when_it_is_back(net, tmp_path, caplog):
    caplog.set_level(logging.INFO, "tensorage")
    faults = Faults()
    async with validating(net, tmp_path / "validator", opener=faults.open) as service:
        rounds = tmp_path / "validator"

        def done() -> int:
            return sum("round done" in record.getMessage() for record in caplog.records)

        await eventually(lambda: done() >= 2, 20)
        faults.away = True
        await eventually(lambda: any("a round failed" in r.getMessage() for r in caplog.records), 20)
        during = done()
        await asyncio.sleep(2.5)
        assert sum("a round failed" in record.getMessage() for record in caplog.records) == 1
        assert done() == during
        faults.away = False
        await eventually(lambda: done() > during, 30)
        assert rounds.exists()
        assert service.axon is not None


async def test_closing_the_pool_ends_a_seal_in_the_middle(tmp_path):
    pool = SealPool(1)
    sealing = asyncio.create_task(pool.sealed(bytes(32), 1, bytes(32), 1, 0))  # takes seconds
    before = set(multiprocessing.active_children())
    await asyncio.sleep(2.0)
    assert not sealing.done()
    began = time.monotonic()
    sealing.cancel()
    pool.close()
    await asyncio.gather(sealing, return_exceptions=True)
    await eventually(lambda: not set(multiprocessing.active_children()) - before, 5)
    assert time.monotonic() - began < 5


async def test_a_worker_seals_as_the_core_does(tmp_path):
    from tensorage import seal

    pool = SealPool(1)
    try:
        found, seconds = await pool.sealed(bytes(32), 1, bytes(32), 0, 5)
    finally:
        pool.close()
    sector = seal.sector_id(bytes(32), 1, bytes(32), seal.DEV, 5)
    assert list(found.roots) == seal.chunk_roots(seal.Sealer(seal.DEV), sector)
    assert 0 < seconds < 5


# As a process


def flags(net, root: Path, wallets: Path, *extra: str) -> list[str]:
    return [
        f"--subtensor.network={net.endpoint}",
        f"--netuid={net.settings.netuid}",
        "--wallet.name=v",
        f"--wallet.path={wallets}",
        f"--db_root_path={root}",
        "--workers=1",
        "--round_seconds=0.5",
        "--audit_seconds=1",
        "--axon.port=0",
        f"--logging.logging_dir={root / 'logs'}",
        *extra,
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[2] / "neurons" / "validator.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 30.0) -> str:
    _, said = process.communicate(timeout=seconds)
    return said


@pytest.fixture
async def wallets(tmp_path, net):
    path = tmp_path / "wallets"
    wallet = faucet.open_wallet("v", "default", path, create=True)
    async with faucet.client(net.path) as client:
        await faucet.register(client, wallet, net.settings.netuid)
        await faucet.stake(client, wallet, net.settings.netuid, 1000)
    return path


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in tasks for child in file.read_text().split()]


def receipts_in(root: Path) -> int:
    for path in root.glob("sn*/validator.sqlite"):
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            return int(db.execute("SELECT count(*) FROM receipts").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
        finally:
            db.close()
    return 0


async def test_a_killed_validator_goes_on_with_its_chain_and_sigterm_ends_it_in_time(net, wallets, tmp_path):
    root = tmp_path / "validator"
    async with mining(net, tmp_path / "disk", 2):
        process = start(flags(net, root, wallets))
        try:
            await eventually(lambda: receipts_in(root) >= 4 or process.poll() is not None, 60)
            assert process.poll() is None, finish(process)
            workers = children_of(process.pid)
            assert workers
            process.kill()
            await asyncio.to_thread(finish, process)  # also waits for the workers, which hold its stderr
            await eventually(lambda: all(state_of(worker) == "Z" for worker in workers), 5)
            seen = receipts_in(root)
            process = start(flags(net, root, wallets))
            await eventually(lambda: receipts_in(root) >= seen + 3 or process.poll() is not None, 60)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = await asyncio.to_thread(finish, process)
            assert time.monotonic() - began < LEAVES_WITHIN
            assert process.returncode == 0, said
            assert "Traceback" not in said
        finally:
            process.kill()
            process.communicate()
    (ledger,) = root.glob("sn*/validator.sqlite")
    document = export.export(ledger)
    assert export.check(document, verify).receipts >= seen + 3
    receipts, *_ = export._parts(document)
    assert check_chain(receipts, receipts[0][0].validator, verify) is not None


async def test_every_wrong_start_is_one_line_with_its_remedy_and_exit_code_2(net, wallets, tmp_path):
    faucet.open_wallet("stranger", "default", wallets, create=True)
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    here = tmp_path / "validator"
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = [
            (["--wallet.name=nobody"], here, "no hotkey at", "btcli wallet create -w nobody"),
            (["--wallet.name=stranger"], here, "is not registered", "tensorage devnet register"),
            ([f"--axon.port={port}"], here, f"port {port} is in use", "--axon.port"),
            ([], blocked / "sub", "cannot be written", "--db_root_path"),
            (
                [f"--subtensor.network=sqlite://{tmp_path}/no.sqlite"],
                here,
                "no.sqlite",
                "tensorage devnet up",
            ),
            (["--axon.external_ip=here"], here, "'here' is no address", "--axon.external_ip"),
            (["--restart"], here, "nobody is there to ask", "--disable_prompt"),
            (["--hops=0"], here, "hops", "--help"),
        ]
        for extra, root, what, remedy in cases:
            process = start(flags(net, root, wallets, f"--logging.logging_dir={tmp_path / 'logs'}", *extra))
            said = await asyncio.to_thread(finish, process, 60)
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            assert process.returncode == 2, (extra, said)
            assert "Traceback" not in said
            (line,) = errors
            assert what in line and remedy in line, (extra, line)
