"""The `validator` command: flags in, service out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from .. import challenge as challenges
from .. import config, seal
from ..chain.network import ChainSettings
from ..chain.wallet import load_hotkey
from ..service.lifetime import serve
from ..service.profile import is_harmless
from .parameters import Parameters
from .service import ValidatorService, ValidatorSettings

app = typer.Typer(add_completion=False)


def parameters_for(
    chain: ChainSettings, *, round_seconds: float, audit_seconds: float, hops: int, deadline: float
) -> Parameters:
    """The parameters on a chain: profile 0 and private addresses where there is nothing to lose."""
    harmless = is_harmless(chain)
    return Parameters(
        hops=hops,
        deadline=deadline,
        round_seconds=round_seconds,
        audit_seconds=audit_seconds,
        profiles=frozenset(seal.PROFILES) if harmless else frozenset({seal.MAIN.number}),
        private=harmless,
    )


@app.command()
def validator(
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    restart: config.Restart = False,
    disable_prompt: Annotated[
        bool, typer.Option("--disable_prompt", "--disable-prompt", help="Do not ask.", show_default=False)
    ] = False,
    workers: config.Workers = None,
    no_store_weights: Annotated[
        bool,
        typer.Option(
            "--no_store_weights",
            "--no-store-weights",
            help="Do not write scores to the ledger; receipts are always written.",
            show_default=False,
        ),
    ] = False,
    no_restore_weights: Annotated[
        bool,
        typer.Option(
            "--no_restore_weights",
            "--no-restore-weights",
            help="Start every miner's score from zero; commitments and receipts stay.",
            show_default=False,
        ),
    ] = False,
    round_seconds: Annotated[
        float, typer.Option("--round_seconds", "--round-seconds", min=0.5, help="Time between rounds.")
    ] = 300.0,
    audit_seconds: Annotated[
        float,
        typer.Option(
            "--audit_seconds", "--audit-seconds", min=0, help="Processor time for seal audits in a round."
        ),
    ] = 30.0,
    hops: Annotated[
        int, typer.Option(min=1, max=challenges.MAX_HOPS, help="Leaves read for one challenge.")
    ] = challenges.HOPS,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Seconds for an answer to a challenge.")
    ] = challenges.DEADLINE,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    axon_port: config.AxonPort = config.DEFAULT_AXON_PORT,
    axon_external_ip: config.AxonExternalIp = None,
    axon_external_port: config.AxonExternalPort = None,
    logging_debug: config.LoggingDebug = False,
    logging_trace: config.LoggingTrace = False,
    logging_dir: config.LoggingDir = config.DEFAULT_LOGGING_DIR,
    metrics_port: config.MetricsPort = 0,
    config_file: config.Config = None,
) -> None:
    """Challenge every miner each round, keep receipts, and set weights by what was proven.

    Example: tensorage validator --netuid 7 --wallet.name validator --axon.port 8091
    """
    config.setup_logging(config.LogSettings(logging_debug, logging_trace, logging_dir), "validator")
    chain = ChainSettings(network, chain_endpoint, config.netuid_of(network, netuid, chain_endpoint))
    hotkey = load_hotkey(wallet_name, wallet_hotkey, str(wallet_path))
    root = db_root_path[0].expanduser()
    if restart and not disable_prompt:
        _confirm_restart(hotkey.ss58, root)
    settings = ValidatorSettings(
        chain=chain,
        root=root,
        restart=restart,
        workers=workers or os.cpu_count() or 1,
        store_scores=not no_store_weights,
        restore_scores=not no_restore_weights,
        port=axon_port,
        external_ip=axon_external_ip,
        external_port=axon_external_port,
        metrics_port=metrics_port,
        parameters=parameters_for(
            chain,
            round_seconds=round_seconds,
            audit_seconds=audit_seconds,
            hops=hops,
            deadline=deadline,
        ),
    )
    asyncio.run(serve(ValidatorService(settings, hotkey).run))


def _confirm_restart(hotkey: str, root: Path) -> None:
    """Ask before the ledger is deleted.

    Raises:
        UsageError: nobody is there to ask.
        typer.Abort: the answer was no.
    """
    if not config.confirmed(f"Delete the ledger of {hotkey} under {root}, receipts and all?"):
        raise typer.Abort


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return config.run(app, arguments, program="tensorage validator")
