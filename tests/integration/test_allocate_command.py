"""The allocate command as an operator meets it: a process, a terminal, signals, full disks, kill -9."""

import json
import os
import pty
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from allocator_data import ME, flip, is_sealed
from devnet_live import live

from tensorage.allocator.layout import DATABASE, Identity
from tensorage.allocator.schema import read_identity
from tensorage.allocator.store import Store
from tensorage.allocator.upkeep import DataDirectory
from tensorage.chain.auth import verify
from tensorage.chain.wallet import create_wallet
from tensorage.commitment import check_listing

REPOSITORY = Path(__file__).parents[2]
GIB_A_SECTOR = 1 / 256


class Operator:
    """Somebody with a wallet and two disks. The chain is away; its genesis is known from before."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.roots = [home / "a", home / "b"]
        hotkey = create_wallet("owner", "miner", str(home / "wallets"))
        self.identity = Identity(ME.genesis, 1, hotkey.public_key, 0)
        self.directory = self.roots[0] / self.identity.directory_name
        self.directory.mkdir(parents=True)
        Store(self.directory / DATABASE, self.identity).close()

    def command(self, *flags: str, sectors: int = 6) -> list[str]:
        roots = [flag for root in self.roots for flag in ("--db_root_path", str(root))]
        return [
            *(sys.executable, str(REPOSITORY / "neurons" / "allocate.py"), *roots),
            *("--wallet.name", "owner", "--wallet.hotkey", "miner"),
            *("--wallet.path", str(self.home / "wallets")),
            *("--subtensor.chain_endpoint", f"sqlite://{self.home}/away.sqlite"),
            *("--logging.logging_dir", str(self.home / "logs")),
            *("--size_in_gb", str(sectors * GIB_A_SECTOR), "--headroom", "0", *flags),
        ]

    def run(self, *flags: str, sectors: int = 6, **kwargs) -> subprocess.CompletedProcess:
        command = self.command(*flags, sectors=sectors)
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            **kwargs,
        )

    def data(self) -> DataDirectory:
        return DataDirectory(self.roots, self.identity)


@pytest.fixture
def operator(tmp_path):
    return Operator(tmp_path)


def one_line(result: subprocess.CompletedProcess) -> str:
    """The one line of an error, of a command that ended as such."""
    assert result.returncode == 2, result
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_it_fills_verifies_and_says_what_it_did(operator):
    result = operator.run("--disable_prompt", "--json")
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert (outcome["sectors"], outcome["added"], outcome["commitment"]) == (6, 6, None)
    assert "the miner makes it" in result.stderr  # the commitment: the chain is away
    assert "verifying: 6 of 6 sectors, 24 of 24 MiB" in result.stderr
    with operator.data() as data:
        flip(data.store.sector(2).path)
        path = data.store.sector(2).path
    result = operator.run("--disable_prompt", "--json", sectors=3)
    assert f"sector 2 is damaged: {path} has bytes" in result.stderr
    outcome = json.loads(result.stdout)
    assert (outcome["sectors"], outcome["removed"], outcome["damaged"]) == (3, 3, [2])
    with operator.data() as data:
        assert all(is_sealed(data, sector) for sector in data.store.sectors("sealed"))


def test_with_a_chain_it_asks_nobody_else_and_commits(operator):
    shutil.rmtree(operator.directory)
    with live(operator.home / "away.sqlite"):
        result = operator.run("--disable_prompt", "--disable_verify", "--json", sectors=3)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["commitment"] == 1
    identity = read_identity(operator.directory / DATABASE)
    assert identity.hotkey == operator.identity.hotkey and identity.genesis != operator.identity.genesis
    with Store(operator.directory / DATABASE, identity) as store:
        signed = store.commitment()
        signed.check(verify)
        check_listing(signed.commitment, store.listing(1))
        assert signed.commitment.sector_count == 3


def test_a_validator_needs_only_its_ledger_and_finney_no_connection(operator):
    flags = ("--validator", "--subtensor.chain_endpoint", "", "--subtensor.network", "finney")
    result = operator.run(*flags)
    assert result.returncode == 0, result.stderr
    ledger = operator.roots[0] / replace(operator.identity, netuid=7).directory_name / "validator.sqlite"
    assert str(ledger) in result.stdout and ledger.exists()
    assert not list(operator.home.rglob("*.sector"))
    assert "ask" in one_line(operator.run(*flags, "--restart"))


@pytest.mark.parametrize(("said", "goes_on"), [("y", True), ("Yes", True), ("", False), ("yep", False)])
def test_the_question_takes_y_and_yes(operator, said, goes_on):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        operator.command(sectors=1), stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(master, f"{said}\n".encode())
    out, errors = process.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert "1 sectors, 4 MiB; 1 to seal" in out and "Go on? [y/N]" in out
    assert process.returncode == (0 if goes_on else 130), errors
    with operator.data() as data:
        assert data.store.counts().sealed == goes_on


def test_nobody_to_ask_is_said_and_nothing_is_done(operator):
    assert "--disable_prompt" in one_line(operator.run())
    with operator.data() as data:
        assert data.store.sectors() == []


def test_a_full_disk_is_one_line_and_leaves_no_half_sector(operator):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    result = operator.run("--disable_prompt", preexec_fn=small_files)
    assert "is full" in one_line(result) and "Free space" in result.stderr
    assert not list(operator.home.rglob("*.sealing")) and not list(operator.home.rglob("*.sector"))
    assert operator.run("--disable_prompt").returncode == 0


def test_bad_input_is_one_line_with_the_remedy(operator):
    path = operator.directory / DATABASE
    no_wallet = operator.run("--disable_prompt", "--wallet.hotkey", "nobody")
    assert "btcli wallet new-hotkey -w owner -H nobody" in one_line(no_wallet)
    assert "--db_root_path" in one_line(operator.run("--db_root_path", "/proc/none"))
    assert "--headroom" in one_line(operator.run("--disable_prompt", "--headroom", "99.99%"))
    assert "sector has 4 MiB" in one_line(operator.run("--disable_prompt", sectors=0.5))
    assert "is no flag" in one_line(
        operator.run("--config", str(write(operator.home / "c.toml", "size = 1")))
    )
    main = operator.run("--subtensor.chain_endpoint", "ws://192.0.2.1:9", "--netuid", "1", "--profile", "0")
    assert "for a devnet or a local node only" in one_line(main)
    path.rename(operator.home / "saved")
    assert "does not answer" in one_line(operator.run("--disable_prompt"))
    (operator.home / "saved").rename(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert "is of version 99" in one_line(operator.run("--disable_prompt"))
    path.write_bytes(b"\1" * 5000)
    assert "is damaged" in one_line(operator.run("--disable_prompt"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_and_in_order(operator, number):
    process = subprocess.Popen(
        operator.command("--disable_prompt", sectors=2000), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: list(operator.home.rglob("*.sector")))
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 130 and b"goes on from here" in errors
    assert not list(operator.home.rglob("*.sealing"))
    with operator.data() as data, data.filling():
        found = data.recover()
        assert found.removed == found.lost == found.damaged == ()
        assert data.store.counts().sealed > 0


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def kill_at(process: subprocess.Popen, operator: Operator, began_ns: int, delay: float) -> None:
    """Kill -9 a command `delay` seconds after its first sector was begun, and see its workers go."""

    def sealing() -> bool:
        if process.poll() is not None:
            return True
        for path in operator.home.rglob("*.sealing"):
            try:
                if path.stat().st_ctime_ns > began_ns:
                    return True
            except FileNotFoundError:
                continue
        return False

    wait_for(sealing)
    time.sleep(delay)
    lists = [path.read_text().split() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
    process.kill()
    process.wait()
    workers = [Path(f"/proc/{pid}/exe") for pids in lists for pid in pids]
    wait_for(lambda: not any(worker.exists() for worker in workers), 5)


def stamps(data: DataDirectory) -> dict[int, tuple[int, int, int]]:
    """Of each sealed sector, the size of its file and what changes when it is written again."""
    status = {sector.index: sector.path.stat() for sector in data.store.sectors("sealed")}
    return {index: (s.st_size, s.st_ino, s.st_mtime_ns) for index, s in status.items()}


def test_killed_at_any_instant_it_loses_no_finished_sector_and_trusts_no_unfinished_one(operator):
    draw = random.Random(20)
    sectors = 150
    kept: dict[int, tuple[int, int, int]] = {}
    for _ in range(6):
        began_ns = time.time_ns()
        process = subprocess.Popen(
            operator.command("--disable_prompt", "--disable_verify", sectors=sectors),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        kill_at(process, operator, began_ns, draw.uniform(0, 0.4))
        with operator.data() as data:
            now = stamps(data)
        assert kept.items() <= now.items()
        assert all(size == ME.sectors.size for size, *_ in now.values())
        kept = now
    assert 0 < len(kept) < sectors
    result = operator.run("--disable_prompt", sectors=sectors)
    assert result.returncode == 0 and "damaged" not in result.stdout
    with operator.data() as data:
        now = stamps(data)
        assert len(now) == sectors and kept.items() <= now.items()
        assert all(is_sealed(data, sector) for sector in data.store.sectors("sealed"))
    assert not list(operator.home.rglob("*.sealing"))
    assert len(list(operator.home.rglob("*.sector"))) == sectors


def test_a_restart_drops_everything_once_it_is_confirmed(operator):
    operator.run("--disable_prompt")
    stray = operator.directory / "sectors" / "notes.txt"
    stray.write_text("not ours")
    assert "--disable_prompt" in one_line(operator.run("--restart"))
    with operator.data() as data:
        before = stamps(data)
        signed = data.store.commit(lambda message: message * 2, 7)
    assert len(before) == 6
    assert operator.run("--restart", "--disable_prompt", sectors=2).returncode == 0
    with operator.data() as data:
        after = stamps(data)
        assert len(after) == 2 and not after.items() & before.items()
        assert data.store.commitment() == signed
    assert stray.exists()


def test_a_restart_without_a_known_chain_touches_nothing(operator):
    database = operator.directory / DATABASE
    database.write_bytes(b"damaged" * 1000)
    assert "does not answer" in one_line(operator.run("--restart", "--disable_prompt"))
    assert database.read_bytes() == b"damaged" * 1000
