"""scripts/register.py and its shell wrappers, through the real btcli with a devnet behind it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tensorage import config
from tensorage.chain.btcli import Btcli
from tensorage.chain.devnet import faucet
from tensorage.chain.devnet.location import url
from tensorage.chain.devnet.producer import is_producing
from tensorage.chain.wallet import create_wallet
from tensorage.registration import Declined, Registrar

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
UP = "from tensorage.chain.devnet.cli import devnet_app; devnet_app()"
NOWHERE = "ws://127.0.0.1:1"
WORDS = 12  # of a mnemonic


class Net:
    """A devnet whose blocks another process makes, and a directory of wallets."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "devnet.sqlite"
        self.wallets = folder / "wallets"
        self.endpoint = url(self.path)
        self.flags = ["--subtensor.chain_endpoint", self.endpoint, "--wallet.path", str(self.wallets)]

    def coldkey(self, name: str, tao: float, hotkey: str = "default") -> str:
        """Makes a wallet with `tao` on its coldkey; the hotkey's address."""
        made = create_wallet(name, hotkey, str(self.wallets))

        async def fund() -> None:
            async with faucet.client(self.path) as chain:
                await faucet.fund(chain, str(made.coldkey_ss58), tao)

        asyncio.run(fund())
        return made.ss58

    def neurons(self, netuid: int) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            async with faucet.client(self.path) as chain:
                graph = await chain.subnets.metagraph(netuid)
                return {neuron.hotkey: neuron for neuron in graph.neurons} if graph else {}

        return asyncio.run(read())

    def btcli(self, name: str, hotkey: str = "default") -> Btcli:
        program = [sys.executable, "-m", "tensorage.chain.devnet.btcli"]
        return Btcli(program, self.endpoint, name, hotkey, str(self.wallets))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    net = Net(tmp_path_factory.mktemp("registration"))
    flags = ["--quiet", "--path", str(net.path), "--block-time", "0.1", "--tempo", "1000"]
    producer = subprocess.Popen([sys.executable, "-c", UP, "up", *flags])
    try:
        deadline = time.monotonic() + 60
        while not is_producing(net.path):
            assert producer.poll() is None, "the devnet did not start"
            assert time.monotonic() < deadline, "the devnet makes no blocks"
            time.sleep(0.1)
        yield net
    finally:
        producer.terminate()
        producer.wait(20)


@pytest.fixture(scope="module")
def register() -> Any:
    """scripts/register.py as a module."""
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / "register.py"), run_name="register"))


def run(*command: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a script of the project; `answer` is what the operator types."""
    script = SCRIPTS / command[0]
    words = [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    own = {key: value for key, value in os.environ.items() if not key.startswith("BT_")}
    return subprocess.run(
        [*words, *command[1:]],
        input=answer,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=own | {"PYTHON": sys.executable},
    )


def steps(report: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in report["steps"]}


def test_a_hotkey_is_registered_served_and_staked_on_and_a_second_run_pays_nothing(net: Net) -> None:
    hotkey = net.coldkey("miner", 100)
    wallet = ["--wallet.name", "miner", "--axon.external_ip", "127.0.0.1", "--axon.port", "9191", "--json"]
    first = run("register_hotkey.sh", *net.flags, *wallet, "--stake", "5", answer="yes\n")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert steps(report) == {"wallet": "already", "register": "done", "axon": "done", "stake": "done"}
    assert "about 0." in first.stderr  # the price
    assert "Coldkey miner has 100 TAO" in first.stderr
    neuron = net.neurons(1)[hotkey]
    assert (neuron.uid, neuron.axon) == (report["uid"], "127.0.0.1:9191")
    assert neuron.alpha_stake.rao == pytest.approx(5e9, rel=0.01)

    second = run("register_hotkey.sh", *net.flags, *wallet)
    assert second.returncode == 0, second.stderr
    assert steps(json.loads(second.stdout)) == {"wallet": "already", "register": "already", "axon": "already"}
    assert "Go on?" not in second.stderr


def test_a_subnet_is_created_and_started_once_its_cost_is_confirmed(net: Net) -> None:
    hotkey = net.coldkey("owner", 1000)
    created = run("create_subnet.sh", *net.flags, "--wallet.name", "owner", "--json", answer="y\n")
    assert created.returncode == 0, created.stderr
    report = json.loads(created.stdout)
    assert steps(report) == {"wallet": "already", "create": "done", "start": "done"}
    assert report["cost_tao"] > 0
    assert net.neurons(report["netuid"])[hotkey].uid == report["uid"] == 0

    again = ["start", "--netuid", str(report["netuid"]), *net.flags, "--wallet.name", "owner"]
    started = run("register.py", *again)
    assert (started.returncode, started.stdout.splitlines()[-1]) == (
        0,
        f"start: already: subnet {report['netuid']} is active",
    )


def test_a_dry_run_shows_the_commands_and_writes_neither_wallet_nor_chain(net: Net) -> None:
    before = net.neurons(1).keys()
    shown = run("register.py", "hotkey", *net.flags, "--wallet-name", "dry", "--stake", "2", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "stakes 2 TAO" in shown.stdout.splitlines()[1]
    assert "subnets register --netuid 1 -n sqlite:///" in shown.stdout
    assert "stake add --netuid 1 --hotkey dry/default --amount-tao 2.000000000" in shown.stdout
    assert not (net.wallets / "dry").exists()
    assert net.neurons(1).keys() == before


def test_nothing_is_sent_without_a_yes(net: Net) -> None:
    hotkey = net.coldkey("shy", 50)
    refused = run("register.py", "hotkey", *net.flags, "--wallet.name", "shy", answer="n\n")
    assert refused.returncode == 1
    assert "the cost was not confirmed" in refused.stderr.splitlines()[-1]
    assert hotkey not in net.neurons(1)


@pytest.mark.parametrize(("answer", "meant"), [("y", True), (" YES ", True), ("yess", False), ("", False)])
def test_y_and_yes_are_yes_and_the_rest_is_no(
    answer: str, meant: bool, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
    assert register.ask("It costs.") is meant


def test_nobody_there_to_ask_is_a_no(register: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(Declined, match="--yes"):
        register.ask("It costs.")


def test_a_coldkey_without_money_is_told_where_to_send_it(net: Net) -> None:
    poor = create_wallet("poor", "default", str(net.wallets))
    refused = run("register.py", "hotkey", *net.flags, "--wallet.name", "poor", "--yes")
    assert refused.returncode == 1
    assert f"Send TAO to {poor.coldkey_ss58}" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_hotkey_that_somebody_registers_meanwhile_counts_as_done(net: Net) -> None:
    hotkey = net.coldkey("racer", 50)
    client = net.btcli("racer")

    def confirm(_: str) -> bool:
        client.write("subnets", "register", "--netuid", "1")
        return True

    report = Registrar(client, say=lambda _: None, confirm=confirm).register_hotkey(1)
    assert [(step.name, step.status) for step in report.steps] == [
        ("wallet", "already"),
        ("register", "already"),
    ]
    assert report.uid == net.neurons(1)[hotkey].uid


def test_a_refusal_by_the_chain_is_one_line_and_the_report_keeps_what_was_done(net: Net) -> None:
    net.coldkey("stranger", 50)
    refused = run("register.py", "start", "--netuid", "1", *net.flags, "--wallet.name", "stranger", "--json")
    assert refused.returncode == 1
    report = json.loads(refused.stdout)
    assert steps(report) == {"wallet": "already"}
    assert report["error"] in refused.stderr
    assert "owner" in report["error"]


def test_a_subnet_that_is_not_there_is_named(net: Net) -> None:
    refused = run("register.py", "hotkey", "--netuid", "77", *net.flags, "--wallet.name", "shy", "--yes")
    assert (refused.returncode, "subnet 77 does not exist" in refused.stderr) == (2, True)


def test_wallets_are_made_once_and_mnemonics_shown_only_if_asked_for(tmp_path: Path) -> None:
    flags = ["--network", NOWHERE, "--netuid", "1", "--wallet.path", str(tmp_path), "--yes"]
    quiet = run("register.py", "hotkey", *flags)
    assert quiet.returncode == 2
    assert "could not reach ws://127.0.0.1:1" in quiet.stderr.splitlines()[-1]
    assert not any(
        len(line.split(": ")[-1].split()) == WORDS for line in (quiet.stdout + quiet.stderr).splitlines()
    )
    key = (tmp_path / "default" / "hotkeys" / "default").read_bytes()

    asked = run("register.py", "hotkey", *flags, "--wallet.hotkey", "second", "--show_mnemonic", "--json")
    mnemonics = json.loads(asked.stdout)["mnemonics"]
    assert {kind: len(words.split()) for kind, words in mnemonics.items()} == {"hotkey": WORDS}
    assert (tmp_path / "default" / "hotkeys" / "default").read_bytes() == key


def test_a_new_coldkey_is_encrypted_with_the_password_given(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    flags = ["--network", NOWHERE, "--netuid", "1", "--wallet.path", str(tmp_path / "w"), "--yes"]
    run("register.py", "hotkey", *flags, "--wallet.password_file", str(secret))
    coldkey = (tmp_path / "w" / "default" / "coldkey").read_bytes()
    assert coldkey.startswith(b"$NACL")
    assert b"correct horse" not in coldkey


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--stake", "-1"], "--stake -1"),
        (["--axon.external_ip", "example.org"], "example.org"),
        (["--axon.external_ip", "192.0.2.1", "--axon.port", "0"], "--axon.port 0"),
        (["--network", "local"], "--netuid"),
        (["--btcli", "/no/such/btcli"], "/no/such/btcli"),
        (["--wallet.name", "a/b"], "a/b"),
        (["--wallet.password_file", "/no/such/file"], "/no/such/file"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_flag_costs_one_line_and_exit_code_2(
    tmp_path: Path, flags: list[str], named: str, register: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    here = [] if "--network" in flags else ["--network", NOWHERE, "--netuid", "1"]
    code = config.run(register.app, ["hotkey", *here, "--wallet.path", str(tmp_path), "--yes", *flags])
    assert code == 2
    assert named in capfd.readouterr().err.splitlines()[-1]
