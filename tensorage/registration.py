"""Putting a wallet, a subnet and a neuron on chain, with btcli.

A run makes the wallet where it is missing, reads what the chain will charge, asks once, and then takes its
steps in order. What is done already is recognised and not done again: a wallet, a registration, a started
subnet, an axon record. Stake is the exception, since adding it twice is adding it twice; so it comes last.

With `dry_run` the chain is read, nothing is written, and each step gives the command that it would run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from .chain.btcli import ALREADY_EXISTS, Btcli, BtcliError
from .chain.wallet import coldkey_address, create_wallet, load_public
from .errors import TensorageError, UsageError

Status = Literal["done", "already", "planned"]
_NEW_NETUID = "<new>"  # stands for the netuid in the commands of a dry run


@dataclass(frozen=True)
class Step:
    """One step of a run and how it ended.

    Args:
        name: wallet, create, start, register, axon or stake.
        status: `already` when there was nothing to do, `planned` in a dry run.
        detail: what stands now, in one line.
        command: the btcli command that was, or would be, run; empty when there was none.
    """

    name: str
    status: Status
    detail: str
    command: str = ""

    def __str__(self) -> str:
        what = self.command if self.status == "planned" and self.command else self.detail
        return f"{self.name}: {self.status}: {what}"


@dataclass
class Report:
    """What a run came to."""

    netuid: int | None = None
    coldkey: str | None = None  # ss58
    hotkey: str | None = None  # ss58
    uid: int | None = None
    cost_tao: float | None = None
    steps: list[Step] = field(default_factory=list)
    mnemonics: dict[str, str] = field(default_factory=dict)  # only of new keys, only if asked for

    def to_value(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


class Declined(TensorageError):
    """The operator said no."""


@dataclass
class Registrar:
    """Takes the steps. `say` is told of each as it ends; `confirm` is asked before the first that costs.

    Args:
        btcli: the program, with the network and the wallet.
        say: takes one line for the operator.
        confirm: takes a question, returns whether to go on.
        dry_run: write nothing.
        show_mnemonics: keep the mnemonics of new keys in the report.
    """

    btcli: Btcli
    say: Callable[[str], None]
    confirm: Callable[[str], bool]
    dry_run: bool = False
    show_mnemonics: bool = False
    report: Report = field(default_factory=Report)

    def register_hotkey(
        self, netuid: int, *, stake_tao: float | None = None, axon: tuple[str, int] | None = None
    ) -> Report:
        """Register the wallet's hotkey on `netuid`; publish `axon` (ip, port) and add `stake_tao`, if given.

        Raises:
            UsageError: a file or a figure is wrong.
            BtcliError: btcli or the chain refused.
            Declined: the operator did not confirm the cost.
        """
        self.report.netuid = netuid
        self._check(stake_tao, axon)
        self._wallet()
        self.report.uid = self._uid(netuid)
        cost = 0.0
        if self.report.uid is None:
            cost = self._cost("subnets", "burn-cost", str(netuid))
            self.report.cost_tao = cost
        if cost or stake_tao:
            parts = [f"registers {self.btcli.key} on subnet {netuid} for about {cost:g} TAO"] if cost else []
            parts += [f"stakes {stake_tao:g} TAO on it"] if stake_tao else []
            self._confirm(f"This {' and '.join(parts)}", cost + (stake_tao or 0.0))
        self._register(netuid)
        if axon is not None:
            self._axon(netuid, *axon)
        if stake_tao:
            self._stake(netuid, stake_tao)
        return self.report

    def create_subnet(
        self, *, start: bool = True, stake_tao: float | None = None, axon: tuple[str, int] | None = None
    ) -> Report:
        """Create a subnet that the wallet owns, start it, and then serve and stake as register_hotkey does.

        The owner's hotkey is registered on a new subnet by the chain. A subnet that may not be started yet
        is left for `start_subnet`.

        Raises: as register_hotkey.
        """
        self._check(stake_tao, axon)
        self._wallet()
        cost = self._cost("subnets", "create-cost")
        self.report.cost_tao = cost
        staking = f" and stakes {stake_tao:g} TAO" if stake_tao else ""
        self._confirm(f"This creates a subnet for {cost:g} TAO{staking}", cost + (stake_tao or 0.0))
        netuid = self._create()
        if start:
            self._start(netuid, later=True)
        if not self.dry_run:
            self.report.uid = self._uid(int(netuid))
        if axon is not None:
            self._axon(netuid, *axon)
        if stake_tao:
            self._stake(netuid, stake_tao)
        return self.report

    def start_subnet(self, netuid: int) -> Report:
        """Start a subnet that the wallet owns.

        Raises: as register_hotkey.
        """
        self.report.netuid = netuid
        self._wallet()
        self._start(netuid, later=False)
        return self.report

    @staticmethod
    def _check(stake_tao: float | None, axon: tuple[str, int] | None) -> None:
        if stake_tao is not None and not 0 < stake_tao < 21e6:
            raise UsageError(
                f"--stake {stake_tao:g} is no amount of TAO", remedy="Give more than 0 and less than 21e6"
            )
        if axon is not None:
            try:
                ip_address(axon[0])
            except ValueError as error:
                raise UsageError(
                    f"--axon.external_ip {axon[0]!r} is no IP address",
                    remedy="Give the one that others reach",
                ) from error
            if not 0 < axon[1] < 65536:
                raise UsageError(f"--axon.port {axon[1]} is no port", remedy="Give one from 1 to 65535")

    def _confirm(self, what: str, cost: float) -> None:
        """Ask whether to spend `cost` TAO; a dry run only says it."""
        what = f"{what}, on network {self.btcli.network}."
        if self.dry_run:
            self.say(what)
            return
        balance = self._balance()
        if balance < cost:
            raise BtcliError(
                f"coldkey {self.btcli.name} has {balance:g} TAO of the {cost:g} that this costs",
                code="insufficient_balance",
                remedy=f"Send TAO to {self.report.coldkey} first",
            )
        if not self.confirm(f"{what} Coldkey {self.btcli.name} has {balance:g} TAO."):
            raise Declined("nothing was sent: the cost was not confirmed")

    def _note(self, name: str, status: Status, detail: str, command: list[str] | None = None) -> None:
        step = Step(name, status, detail, "" if command is None else shlex.join(command))
        self.report.steps.append(step)
        self.say(str(step))

    def _missing(self) -> bool:
        """Whether a key is to be made. A key of which only the public half is here is somewhere else."""
        wallet = Path(self.btcli.path) / self.btcli.name
        hotkey = wallet / "hotkeys" / self.btcli.hotkey
        pairs = (
            (wallet / "coldkey", wallet / "coldkeypub.txt"),
            (hotkey, hotkey.with_name(f"{hotkey.name}pub.txt")),
        )
        return any(not secret.exists() and not public.exists() for secret, public in pairs)

    def _wallet(self) -> None:
        missing = self._missing()
        if missing and self.dry_run:
            self._note("wallet", "planned", f"{self.btcli.key} is made under {self.btcli.path}")
            return
        password = None
        if self.btcli.password_file is not None:
            try:
                password = self.btcli.password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except OSError as error:
                raise UsageError(
                    f"{self.btcli.password_file} cannot be read: {error.strerror}",
                    remedy="Name a file that holds the coldkey's password with --wallet.password_file",
                ) from error
        if missing:
            create_wallet(
                self.btcli.name,
                self.btcli.hotkey,
                self.btcli.path,
                coldkey_password=password,
                on_mnemonic=self._mnemonic,
            )
        public = load_public(self.btcli.name, self.btcli.hotkey, self.btcli.path)
        self.report.hotkey = public.ss58
        self.report.coldkey = coldkey_address(self.btcli.name, self.btcli.path)
        self._note("wallet", "done" if missing else "already", f"{self.btcli.key} is {public.ss58}")

    def _mnemonic(self, kind: str, mnemonic: str) -> None:
        if self.show_mnemonics:
            self.report.mnemonics[kind] = mnemonic
        else:
            self.say(
                f"the new {kind}'s mnemonic is not shown (--show_mnemonic does): keep a copy of its file"
            )

    def _uid(self, netuid: int) -> int | None:
        """The hotkey's uid, None while it has none."""
        if self.report.hotkey is None:  # a dry run before the wallet is made
            return None
        uid = self.btcli.read("query", "uid", "--netuid", str(netuid), "--hotkey", self.report.hotkey)
        if uid is not None and (isinstance(uid, bool) or not isinstance(uid, int)):
            raise BtcliError(f"btcli gave no uid but {uid!r}", remedy="tensorage needs btcli 11.3")
        return uid

    def _cost(self, *arguments: str) -> float:
        answer = self.btcli.read(*arguments)
        if not isinstance(answer, dict) or not isinstance(answer.get("tao"), int | float):
            raise BtcliError("btcli gave no cost", remedy="tensorage needs btcli 11.3")
        return float(answer["tao"])

    def _balance(self) -> float:
        """Free TAO of the coldkey; btcli gives it as for display, such as τ1,000.5."""
        shown = self.btcli.read("query", "balance", "--coldkey", self.btcli.name)
        figure = re.fullmatch(r"\D*([\d,]+(?:\.\d+)?)\D*", str(shown))
        if figure is None:
            raise BtcliError(f"btcli gave no balance but {shown!r}", remedy="tensorage needs btcli 11.3")
        return float(figure.group(1).replace(",", ""))

    def _write(self, name: str, detail: str, *arguments: str) -> None:
        """Take one step and note how it ended; a dry run only notes its command."""
        command = self.btcli.writing(*arguments)
        if self.dry_run:
            self._note(name, "planned", detail, command)
            return
        try:
            self.btcli.write(*arguments)
        except BtcliError as error:
            if error.code != ALREADY_EXISTS:
                raise
            self._note(name, "already", detail, command)
        else:
            self._note(name, "done", detail, command)

    def _create(self) -> int | str:
        command = ("subnets", "create")
        if self.dry_run:
            self._note("create", "planned", "", self.btcli.writing(*command))
            return _NEW_NETUID
        receipt = self.btcli.write(*command)
        netuid = (receipt.get("data") or {}).get("netuid")
        if not isinstance(netuid, int):
            raise BtcliError("btcli names no new subnet", remedy="Look for it with: btcli subnets list")
        self.report.netuid = netuid
        self._note("create", "done", f"subnet {netuid}", self.btcli.writing(*command))
        return netuid

    def _start(self, netuid: int | str, *, later: bool) -> None:
        try:
            self._write("start", f"subnet {netuid} is active", "hparams", "start", "--netuid", str(netuid))
        except BtcliError as error:
            if not later or error.code != "too_early":
                raise
            self._note(
                "start", "planned", f"too early; later: python scripts/register.py start --netuid {netuid}"
            )

    def _register(self, netuid: int) -> None:
        if self.report.uid is not None:
            self._note("register", "already", f"uid {self.report.uid} on subnet {netuid}")
            return
        self._write(
            "register", f"registered on subnet {netuid}", "subnets", "register", "--netuid", str(netuid)
        )
        if not self.dry_run:
            self.report.uid = self._uid(netuid)
            if self.report.uid is None:
                raise BtcliError(
                    f"{self.btcli.key} has no uid on subnet {netuid} although btcli reports success",
                    remedy="Wait for a block and run this again; what is done is not paid twice",
                )

    def _axon(self, netuid: int | str, ip: str, port: int) -> None:
        endpoint = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        if self._serves(netuid, ip, port):
            self._note("axon", "already", endpoint)
            return
        self._write(
            "axon",
            endpoint,
            *("axon", "set", "--netuid", str(netuid), "--ip", ip, "--port", str(port)),
        )

    def _serves(self, netuid: int | str, ip: str, port: int) -> bool:
        """Whether the chain has this very axon record, which need not be sent again."""
        if self.report.uid is None:
            return False
        metagraph = self.btcli.read("query", "metagraph", "--netuid", str(netuid))
        axons = metagraph.get("axons") if isinstance(metagraph, dict) else None
        if not isinstance(axons, list) or self.report.uid >= len(axons):
            return False
        axon = axons[self.report.uid]
        return (axon.get("ip"), axon.get("port")) == (int(ip_address(ip)), port)

    def _stake(self, netuid: int | str, amount: float) -> None:
        self._write(
            "stake",
            f"{amount:g} TAO on subnet {netuid}",
            *(
                "stake",
                "add",
                "--netuid",
                str(netuid),
                "--hotkey",
                self.btcli.key,
                "--amount-tao",
                f"{amount:.9f}",
            ),
        )
