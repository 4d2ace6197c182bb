#!/usr/bin/env python
"""Register on chain with btcli: a miner's or validator's hotkey, or a subnet of one's own.

    python scripts/register.py hotkey --netuid 7 --wallet.name miner --axon.external_ip 203.0.113.7
    python scripts/register.py subnet --wallet.name owner --subtensor.network test
    python scripts/register.py start --netuid 12 --wallet.name owner --subtensor.network test

The wallet is made where it is missing, what is done already is left alone, and costs are shown and confirmed
before anything is sent. register_hotkey.sh and create_subnet.sh beside this file call it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tensorage.chain import btcli
from tensorage.chain.network import ChainSettings
from tensorage.config import (
    DEFAULT_AXON_PORT,
    DEFAULT_NETWORK,
    DEFAULT_WALLET_PATH,
    AxonExternalIp,
    AxonExternalPort,
    AxonPort,
    ChainEndpoint,
    Config,
    Netuid,
    Network,
    WalletHotkey,
    WalletName,
    WalletPath,
    netuid_of,
    run,
)
from tensorage.errors import TensorageError
from tensorage.registration import Declined, Registrar, Report

PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--wallet.password_file",
        "--wallet-password-file",
        "--wallet.password-file",
        envvar="BT_WALLET_PASSWORD_FILE",
        help="File with the coldkey's password; a new coldkey is encrypted with it.",
    ),
]
Stake = Annotated[
    float | None, typer.Option("--stake", help="TAO to stake on the hotkey. Each run adds it again.")
]
Program = Annotated[
    str | None,
    typer.Option("--btcli", help="The btcli to use, a command.", show_default="this environment's"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry_run", "--dry-run", help="Show the commands, write nothing.", show_default=False)
]
ShowMnemonic = Annotated[
    bool,
    typer.Option("--show_mnemonic", "--show-mnemonic", help="Print new keys' mnemonics.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print a report in JSON.", show_default=False)]

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


def ask(question: str) -> bool:
    """Ask on stderr; y and yes are yes, everything else is no.

    Raises:
        Declined: there is nobody to ask.
    """
    sys.stderr.write(f"{question}\nGo on? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise Declined("nothing was sent: there is nobody to confirm the cost", remedy="Say so with --yes")
    return answer.strip().lower() in ("y", "yes")


def perform(
    work: Callable[[Registrar], Report],
    *,
    settings: ChainSettings,
    wallet: tuple[str, str, Path],
    password_file: Path | None,
    program: str | None,
    yes: bool,
    dry_run: bool,
    show_mnemonic: bool,
    as_json: bool,
) -> None:
    """Let a registrar do `work`, and print the report, also that of a run which failed half way."""
    devnet = [sys.executable, "-m", "tensorage.chain.devnet.btcli"]
    registrar = Registrar(
        btcli.Btcli(
            program=devnet if settings.is_devnet and not program else btcli.find(program),
            network=settings.label,
            name=wallet[0],
            hotkey=wallet[1],
            path=str(wallet[2].expanduser()),
            password_file=password_file,
        ),
        say=lambda line: typer.echo(line, err=as_json),
        confirm=(lambda _: True) if yes else ask,
        dry_run=dry_run,
        show_mnemonics=show_mnemonic,
    )
    failure = None
    try:
        work(registrar)
    except TensorageError as error:
        failure = error
    if as_json:
        typer.echo(json.dumps(registrar.report.to_value() | {"error": failure and str(failure)}))
    else:
        for kind, mnemonic in registrar.report.mnemonics.items():
            typer.echo(f"{kind} mnemonic: {mnemonic}")
    if failure is not None:
        raise failure


@app.command()
def hotkey(
    netuid: Netuid = None,
    network: Network = DEFAULT_NETWORK,
    chain_endpoint: ChainEndpoint = None,
    wallet_name: WalletName = "default",
    wallet_hotkey: WalletHotkey = "default",
    wallet_path: WalletPath = DEFAULT_WALLET_PATH,
    password_file: PasswordFile = None,
    axon_external_ip: AxonExternalIp = None,
    axon_external_port: AxonExternalPort = None,
    axon_port: AxonPort = DEFAULT_AXON_PORT,
    stake: Stake = None,
    program: Program = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_mnemonic: ShowMnemonic = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Register a hotkey on a subnet; publish its axon and stake on it, if told to.

    Example: scripts/register_hotkey.sh --netuid 7 --wallet.name miner --axon.external_ip 203.0.113.7
    """
    subnet = netuid_of(network, netuid, chain_endpoint)
    axon = None if axon_external_ip is None else (axon_external_ip, axon_external_port or axon_port)
    perform(
        lambda registrar: registrar.register_hotkey(subnet, stake_tao=stake, axon=axon),
        settings=ChainSettings(network, chain_endpoint, subnet),
        wallet=(wallet_name, wallet_hotkey, wallet_path),
        password_file=password_file,
        program=program,
        yes=yes,
        dry_run=dry_run,
        show_mnemonic=show_mnemonic,
        as_json=as_json,
    )


@app.command()
def subnet(
    network: Network = DEFAULT_NETWORK,
    chain_endpoint: ChainEndpoint = None,
    wallet_name: WalletName = "default",
    wallet_hotkey: WalletHotkey = "default",
    wallet_path: WalletPath = DEFAULT_WALLET_PATH,
    password_file: PasswordFile = None,
    axon_external_ip: AxonExternalIp = None,
    axon_external_port: AxonExternalPort = None,
    axon_port: AxonPort = DEFAULT_AXON_PORT,
    stake: Stake = None,
    no_start: Annotated[
        bool, typer.Option("--no_start", "--no-start", help="Create only.", show_default=False)
    ] = False,
    program: Program = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_mnemonic: ShowMnemonic = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Create a subnet and start it. Each run creates another one.

    Example: scripts/create_subnet.sh --wallet.name owner --subtensor.network test
    """
    axon = None if axon_external_ip is None else (axon_external_ip, axon_external_port or axon_port)
    perform(
        lambda registrar: registrar.create_subnet(start=not no_start, stake_tao=stake, axon=axon),
        settings=ChainSettings(network, chain_endpoint, 0),
        wallet=(wallet_name, wallet_hotkey, wallet_path),
        password_file=password_file,
        program=program,
        yes=yes,
        dry_run=dry_run,
        show_mnemonic=show_mnemonic,
        as_json=as_json,
    )


@app.command()
def start(
    netuid: Netuid = None,
    network: Network = DEFAULT_NETWORK,
    chain_endpoint: ChainEndpoint = None,
    wallet_name: WalletName = "default",
    wallet_hotkey: WalletHotkey = "default",
    wallet_path: WalletPath = DEFAULT_WALLET_PATH,
    password_file: PasswordFile = None,
    program: Program = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Start a subnet that the wallet owns, if it was too early to when it was created.

    Example: python scripts/register.py start --netuid 12 --wallet.name owner --subtensor.network test
    """
    subnet = netuid_of(network, netuid, chain_endpoint)
    perform(
        lambda registrar: registrar.start_subnet(subnet),
        settings=ChainSettings(network, chain_endpoint, subnet),
        wallet=(wallet_name, wallet_hotkey, wallet_path),
        password_file=password_file,
        program=program,
        yes=True,
        dry_run=dry_run,
        show_mnemonic=False,
        as_json=as_json,
    )


if __name__ == "__main__":
    sys.exit(run(app, program="register.py"))
