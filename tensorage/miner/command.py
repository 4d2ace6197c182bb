"""The `miner` command: flags in, service out; and `miner exit`, which lets one leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import config
from ..allocator.plan import Headroom
from ..chain.network import ChainSettings
from ..chain.wallet import load_hotkey
from ..errors import UsageError
from ..service.lifetime import serve
from .leaving import leave
from .service import DEFAULT_TRASH_DAYS, LONGEST_TRASH, MinerService, MinerSettings


def build(service: type[MinerService]) -> typer.Typer:
    """The command that runs a miner of that kind."""
    app = typer.Typer(add_completion=False)

    @app.callback(invoke_without_command=True)
    def miner(
        context: typer.Context,
        db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
        size_in_gb: config.SizeInGb = None,
        threshold: config.Threshold = None,
        headroom: Annotated[
            str, typer.Option("--headroom", help="What stays free on each disk: 10%, or a number of GiB.")
        ] = "5%",
        restart: config.Restart = False,
        disable_prompt: Annotated[
            bool,
            typer.Option("--disable_prompt", "--disable-prompt", help="Ask nothing.", show_default=False),
        ] = False,
        workers: config.Workers = None,
        seconds_per_reallocate: Annotated[
            float,
            typer.Option(
                "--seconds_per_reallocate",
                "--seconds-per-reallocate",
                min=1,
                help="How often space is planned and shared among validators anew.",
            ),
        ] = config.DEFAULT_SECONDS_PER_REALLOCATE,
        netuid: config.Netuid = None,
        network: config.Network = config.DEFAULT_NETWORK,
        chain_endpoint: config.ChainEndpoint = None,
        wallet_name: config.WalletName = "default",
        wallet_hotkey: config.WalletHotkey = "default",
        wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
        axon_port: config.AxonPort = config.DEFAULT_AXON_PORT,
        axon_external_ip: config.AxonExternalIp = None,
        axon_external_port: config.AxonExternalPort = None,
        trash_days: Annotated[
            float,
            typer.Option(
                "--trash_days",
                "--trash-days",
                min=0,
                max=LONGEST_TRASH,
                help="How long shards that were removed or expired can be restored; fractions are allowed.",
            ),
        ] = DEFAULT_TRASH_DAYS,
        profile: Annotated[
            int | None,
            typer.Option("--profile", min=0, max=1, help="Size of sectors.", show_default="1; 0 on a devnet"),
        ] = None,
        logging_debug: config.LoggingDebug = False,
        logging_trace: config.LoggingTrace = False,
        logging_dir: config.LoggingDir = config.DEFAULT_LOGGING_DIR,
        metrics_port: config.MetricsPort = 0,
        config_file: config.Config = None,
    ) -> None:
        """Keep sealed sectors and clients' shards, prove it to validators, fill what is missing meanwhile.

        Example: tensorage miner --netuid 7 --wallet.name miner --size_in_gb 500 --axon.port 8091
        """
        if context.invoked_subcommand is not None:
            _check_none_given(context)
            return
        config.setup_logging(config.LogSettings(logging_debug, logging_trace, logging_dir), "miner")
        settings = MinerSettings(
            chain=ChainSettings(network, chain_endpoint, config.netuid_of(network, netuid, chain_endpoint)),
            roots=tuple(path.expanduser() for path in db_root_path),
            size_in_gb=size_in_gb,
            threshold=threshold,
            headroom=Headroom.parse(headroom),
            restart=restart,
            workers=workers,
            seconds_per_reallocate=seconds_per_reallocate,
            profile=profile,
            port=axon_port,
            external_ip=axon_external_ip,
            external_port=axon_external_port,
            metrics_port=metrics_port,
            trash_days=trash_days,
        )
        if restart and not disable_prompt:
            _confirm_restart(settings.roots)
        hotkey = load_hotkey(wallet_name, wallet_hotkey, str(wallet_path))
        asyncio.run(serve(service(settings, hotkey).run))

    app.command("exit")(leave)
    return app


app = build(MinerService)


def _check_none_given(context: typer.Context) -> None:
    """Check that no flag stands before a sub-command, where nobody would read it.

    Raises:
        UsageError: one does.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            flag, command = parameter.opts[0], context.invoked_subcommand
            raise UsageError(
                f"{flag} stands before {command}",
                remedy=f"Put flags behind it: tensorage miner {command} {flag} ...",
            )


def _confirm_restart(roots: Sequence[Path]) -> None:
    """Ask before everything is dropped.

    Raises:
        UsageError: nobody is there to ask.
        typer.Abort: the answer was no.
    """
    where = ", ".join(str(root) for root in roots)
    if not config.confirmed(
        f"Drop this miner's database, all its sectors and clients' shards under {where}?"
    ):
        raise typer.Abort


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return config.run(app, arguments, program="tensorage miner")
