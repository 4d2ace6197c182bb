"""The real btcli with the devnet behind it: flags, both output channels and exit codes are btcli's own."""

import json
import os
import subprocess
import sys

import bittensor.client
import pytest
from devnet_live import live

from tensorage.chain.devnet import btcli as devnet_btcli
from tensorage.chain.devnet import faucet, open_substrate, url

BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


class Btcli:
    """Runs commands in this process, which saves the imports; `rc`, `out` and `err` are the last one's."""

    def __init__(self, path, wallets, capfd):
        self.path, self.wallets, self._capfd = path, wallets, capfd

    def run(self, *arguments):
        self._capfd.readouterr()
        flags = ["-n", "devnet", "--wallet-path", str(self.wallets), "-w", "owner", "-H", "hot", "--json"]
        with pytest.raises(SystemExit) as ended:
            devnet_btcli.main([*map(str, arguments), *flags])
        self.rc = ended.value.code or 0
        self.out, self.err = self._capfd.readouterr()
        return self

    def ok(self, *arguments):
        """The command's answer; it must succeed and write to stdout only."""
        self.run(*arguments)
        assert (self.rc, self.err.strip()) == (0, ""), (arguments, self.out, self.err)
        return json.loads(self.out)

    def failed(self, *arguments):
        """The error of a transaction that a block refused: JSON on stdout, exit code 1."""
        self.run(*arguments)
        assert self.rc == 1, (arguments, self.out, self.err)
        answer = json.loads(self.out)
        assert answer["success"] is False
        return answer["error"]["name"], answer["error"]["code"]

    def refused(self, *arguments, rc=1):
        """The error of a command that never got to a block: stdout empty, JSON on stderr."""
        self.run(*arguments)
        assert (self.rc, self.out.strip()) == (rc, ""), (arguments, self.out, self.err)
        return self.err


@pytest.fixture
async def funded(path, wallets):
    async with faucet.client(path) as chain:
        wallet = faucet.open_wallet("owner", "hot", wallets, create=True)
        await faucet.fund(chain, wallet.coldkeypub.ss58_address, 2000)
    return wallet


@pytest.fixture
def path(tmp_path):
    with live(tmp_path / "devnet.sqlite") as path:
        yield path


@pytest.fixture
def wallets(tmp_path):
    return tmp_path / "wallets"


@pytest.fixture
def btcli(path, wallets, funded, monkeypatch, capfd):
    monkeypatch.setenv("TENSORAGE_DEVNET", str(path))
    monkeypatch.setenv("HOME", str(path.parent))
    for name in ("BTCLI_TOKEN_SYMBOLS_CACHE", "BTCLI_SUBNET_NAMES_CACHE"):
        monkeypatch.setenv(name, str(path.parent / f"{name}.json"))
    # What btcli.main changes for the process is put back after the test.
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(bittensor.client, "RpcSubstrate", bittensor.client.RpcSubstrate)
    monkeypatch.setattr(bittensor.settings, "NETWORKS", dict(bittensor.settings.NETWORKS))
    return Btcli(path, wallets, capfd)


def test_a_subnets_life_by_btcli_alone(btcli, funded):
    hotkey = funded.hotkeypub.ss58_address
    assert btcli.ok("subnets", "create-cost")["tao"] == 100
    assert btcli.ok("subnets", "create", "--yes")["data"]["netuid"] == 2
    assert btcli.ok("subnets", "create-cost")["tao"] > 190
    assert btcli.ok("hparams", "start", "--netuid", 2, "--yes")["success"]
    assert btcli.failed("hparams", "start", "--netuid", 2, "--yes")[1] == "already_exists"
    assert btcli.ok("subnets", "burn-cost", 1)["tao"] > 0
    unregistered = btcli.failed("axon", "set", "--netuid", 1, "--ip", "1.2.3.4", "--port", 1, "--yes")
    assert unregistered == ("HotKeyNotRegisteredInNetwork", "not_registered")
    registered = btcli.ok("subnets", "register", "--netuid", 1, "--yes")
    assert registered["success"]
    again = btcli.failed("subnets", "register", "--netuid", 1, "--yes")
    assert again == ("HotKeyAlreadyRegisteredInSubNet", "already_exists")
    assert btcli.failed("subnets", "register", "--netuid", 9, "--yes")[1] == "subnet_not_exists"
    assert btcli.ok("query", "uid", "--netuid", 1, "--hotkey", "owner/hot") == 1
    assert btcli.ok("stake", "add", "--netuid", 1, "--hotkey", "owner/hot", "--amount-tao", 300, "--yes")[
        "success"
    ]
    assert btcli.ok("axon", "set", "--netuid", 1, "--ip", "203.0.113.7", "--port", 8091, "--yes")["success"]
    graph = btcli.ok("query", "metagraph", "--netuid", 1)
    assert graph["hotkeys"][1] == hotkey
    assert graph["axons"][1]["port"] == 8091
    assert graph["alpha_stake"][1] >= 300 * 10**9
    (position,) = [row for row in btcli.ok("stake", "list") if row["netuid"] == 1]
    assert position["hotkey"] == hotkey
    balance = btcli.ok("wallet", "balance")
    assert balance["free_tao"] + 300 + 100 == pytest.approx(2000, abs=1)
    assert btcli.ok("tx", "transfer", "--dest", BOB, "--amount-tao", 3, "--yes")["success"]
    assert btcli.ok("query", "balance", "--coldkey", BOB) == "τ3.000000000"
    poor = btcli.failed("tx", "transfer", "--dest", BOB, "--amount-tao", 10**6, "--yes")
    assert poor == ("FundsUnavailable", "insufficient_balance")
    assert btcli.ok("hparams", "set", "--netuid", 2, "--name", "immunity_period", "--value", 77, "--yes")[
        "success"
    ]
    assert btcli.ok("query", "subnet-hyperparameters", "--netuid", 2)["immunity_period"] == 77
    other = btcli.failed("hparams", "set", "--netuid", 1, "--name", "immunity_period", "--value", 77, "--yes")
    assert other == ("BadOrigin", "not_authorized")


def test_validating_by_btcli(btcli, funded):
    assert btcli.ok("subnets", "register", "--netuid", 1, "--yes")["success"]
    assert btcli.ok("stake", "add", "--netuid", 1, "--hotkey", "owner/hot", "--amount-tao", 300, "--yes")[
        "success"
    ]
    status = btcli.ok("query", "epoch-status", "--netuid", 1)
    assert status["tempo"] == 20
    assert status["next_epoch_start_block"] == status["last_epoch_block"] + 20
    while not btcli.ok("query", "neurons", "--netuid", 1)[1]["validator_permit"]:
        pass
    weights = [
        "weights",
        "set",
        "--netuid",
        1,
        "--uids",
        "0,1",
        "--weights",
        "0.2,0.8",
        "--version-key",
        0,
        "--yes",
    ]
    assert btcli.ok(*weights)["success"]
    row = btcli.ok("query", "weights", "--netuid", 1)["1"]
    assert row["1"] == pytest.approx(4 * row["0"], rel=1e-3)
    commitment = {"netuid": 1, "info": {"fields": [[{"Raw5": "0x68656c6c6f"}]]}}
    call = [
        "call",
        "Commitments.set_commitment",
        "--args",
        json.dumps(commitment),
        "--key",
        "hotkey",
        "--yes",
    ]
    assert btcli.ok(*call)["success"]
    (record,) = btcli.ok("query", "commitments", "--netuid", 1)
    assert (record["uid"], record["commitment"]) == (1, "hello")


def test_what_never_gets_to_a_block_is_an_error_on_stderr(btcli, tmp_path):
    assert "--yes" in btcli.refused("subnets", "register", "--netuid", 1)
    assert "unknown or owner-unsettable" in btcli.refused(
        "hparams", "set", "--netuid", 1, "--name", "nothing", "--value", 1, "--yes", rc=2
    )
    btcli.run("subnets", "register", "--no-such-flag")
    assert (btcli.rc, btcli.out) == (2, "")
    plan = btcli.ok("subnets", "create", "--dry-run")
    assert plan["ok"]
    assert plan["op"] == "register_subnet"
    assert btcli.ok("subnets", "create-cost")["tao"] == 100


def test_the_module_runs_as_a_program_on_a_file_that_it_is_told(path, tmp_path):
    program = [sys.executable, "-m", "tensorage.chain.devnet.btcli"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    shown = subprocess.run(
        [*program, "subnets", "burn-cost", "1", "-n", url(path), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["tao"] > 0
    missing = subprocess.run(
        [*program, "subnets", "burn-cost", "1", "-n", f"sqlite://{tmp_path}/none", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no devnet at" in json.loads(missing.stderr)["error"]


def test_an_endpoint_without_a_file_is_a_usage_error(btcli):
    with pytest.raises(SystemExit) as ended:
        devnet_btcli.main(["subnets", "burn-cost", "1", "-n", "sqlite://relative"])
    assert ended.value.code == 2


def test_another_network_is_the_sdks_own():
    assert isinstance(
        devnet_btcli._substrate("ws://127.0.0.1:9", retry_forever=False), bittensor.RpcSubstrate
    )
    assert isinstance(devnet_btcli._substrate("sqlite:///x"), type(open_substrate("/x")))
