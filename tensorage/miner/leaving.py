"""`miner exit`: leave the subnet without losing a client's shard.

It marks the miner in its database, which the running miner reads: from then on it takes no new shard, and
says so to validators, who bring its shards elsewhere and then remove them here. Meanwhile it must run, since
they are read from it. Once none is left it is safe to stop. What was removed is in the trash then, which
nobody needs but whoever removed it; the filler counts until the miner stops.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import config
from ..allocator import leaving, locks
from ..allocator.errors import BusyError
from ..allocator.layout import DATABASE, directory_name
from ..allocator.schema import read_identity
from ..allocator.store import Store
from ..chain.wallet import load_public
from ..errors import UsageError

LOOK_SECONDS = 1.0
LINE_SECONDS = 60.0  # between lines, where there is no terminal

log = logging.getLogger(__name__)


def leave(
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Stay: take shards again.", show_default=False)
    ] = False,
    no_wait: Annotated[
        bool,
        typer.Option("--no_wait", "--no-wait", help="Do not wait for the last shard.", show_default=False),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one line of JSON.", show_default=False)
    ] = False,
    config_file: config.Config = None,
) -> None:
    """Leave the subnet: take no new shard, and wait until validators have moved those that are here.

    The miner must run meanwhile. Ending this command changes nothing: the miner goes on leaving.

    Example: tensorage miner exit --netuid 7 --wallet.name miner
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    key = load_public(wallet_name, wallet_hotkey, str(wallet_path))
    name = directory_name(config.netuid_of(network, netuid, chain_endpoint), key.public_key)
    directory = db_root_path[0].expanduser() / name
    identity = read_identity(directory / DATABASE)
    if identity is None:
        raise UsageError(
            f"there is no miner in {directory}",
            remedy="Give --db_root_path, --netuid and --wallet.* as the miner has them",
        )
    with Store(directory / DATABASE, identity) as store:
        store.write(lambda db: leaving.mark(db, not cancel))
        left = store.read(leaving.live)
        if cancel:
            console.print("the miner stays, and takes shards again")
        elif not no_wait:
            if left and not _runs(directory):
                console.print(
                    f"no miner runs on {directory}: start it, so that its {left} shards can be read"
                )
            left = wait(lambda: store.read(leaving.live), console)
            console.print("no shard is left: it is safe to stop the miner")
    if as_json:
        typer.echo(json.dumps({"leaving": not cancel, "shards": left, "safe_to_stop": not (cancel or left)}))


def wait(live: Callable[[], int], console: Console, *, every: float = LOOK_SECONDS) -> int:
    """Show how many shards are left until none is; returns 0.

    Args:
        live: counts them.
        every: seconds between counts.
    """
    total = left = live()
    if not left:
        return 0
    told = time.monotonic()
    console.print(f"leaving: {left} shards are left; validators are moving them")
    bar = Progress(
        TextColumn("shards moved"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        while left:
            time.sleep(every)
            left = live()
            total = max(total, left)  # what was being uploaded
            bar.update(task, total=total, completed=total - left)
            if not console.is_terminal and time.monotonic() - told >= LINE_SECONDS:
                told = time.monotonic()
                console.print(f"leaving: {left} of {total} shards are left")
    return left


def _runs(directory: Path) -> bool:
    """Whether a miner answers for a data directory."""
    try:
        with locks.serving(directory):
            return False
    except BusyError:
        return True
