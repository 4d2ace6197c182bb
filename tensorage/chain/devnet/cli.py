"""`tensorage devnet`: a local chain to try everything on. No wallet, no network and no money is needed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import fields
from pathlib import Path
from typing import Any

import rich.box
import typer
from bittensor import BittensorError
from rich.console import Console
from rich.table import Table

from ...errors import ChainError, TensorageError, UsageError
from . import faucet
from .genesis import Genesis, create, is_blank
from .location import default_path, locate, url
from .producer import Producer, is_producing, production
from .store import Block, Store

devnet_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="A local chain for tests and demos: one SQLite file, one block producer, any number of neurons.",
)

_PATH = typer.Option(
    None, "--path", help="The devnet's file. Default: $TENSORAGE_DEVNET, else ~/.tensorage/devnet.sqlite."
)
_NETUID = typer.Option(None, "--netuid", help="The subnet. Default: the one that `up` made.")
_NAME = typer.Option(
    "default", "--wallet.name", "--wallet-name", envvar="BT_WALLET", help="The coldkey's wallet."
)
_HOTKEY = typer.Option(
    "default", "--wallet.hotkey", "--wallet-hotkey", envvar="BT_WALLET_HOTKEY", help="The hotkey's name."
)
_WALLETS = typer.Option(
    Path("~/.bittensor/wallets"),
    "--wallet.path",
    "--wallet-path",
    envvar="BT_WALLET_PATH",
    help="Where wallets are.",
)
_CREATE = typer.Option(
    False, "--create-wallet", help="Make the keys, without a password, where they are missing."
)
_JSON = typer.Option(False, "--json", help="Print JSON for a script.")
_DEFAULTS = Genesis()
_WIDE = 150  # columns that a table with whole hotkeys has


def _command(run: Callable[[], None]) -> None:
    """Run a command's body; an error is one line on stderr and the exit code that it asks for."""
    try:
        run()
    except TensorageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except BittensorError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(ChainError.exit_code) from error


def _async(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    _command(lambda: asyncio.run(work()))


def _file(path: str | None) -> Path:
    return default_path() if path is None else locate(path)


def _netuid(path: Path, netuid: int | None) -> int:
    store = Store(path)
    try:
        return int(store.meta("netuid")) if netuid is None else netuid
    finally:
        store.close()


@devnet_app.command(short_help="Make blocks until it is stopped.")
def up(
    path: str = _PATH,
    block_time: float = typer.Option(None, help=f"Seconds a block. New: {_DEFAULTS.block_time}."),
    tempo: int = typer.Option(None, help=f"Blocks an epoch. New: {_DEFAULTS.tempo}."),
    netuid: int = typer.Option(
        None, help=f"The subnet that is there from the start. New: {_DEFAULTS.netuid}."
    ),
    seed: str = typer.Option(None, help="Make genesis and block entropy follow from this text."),
    commit_reveal: bool = typer.Option(None, help="Weights are committed and revealed. New: off."),
    weights_rate_limit: int = typer.Option(None, help=f"In blocks. New: {_DEFAULTS.weights_rate_limit}."),
    serving_rate_limit: int = typer.Option(None, help=f"In blocks. New: {_DEFAULTS.serving_rate_limit}."),
    immunity_period: int = typer.Option(None, help=f"In blocks. New: {_DEFAULTS.immunity_period}."),
    stake_threshold: float = typer.Option(
        None, help=f"TAO of stake that setting weights takes. New: {_DEFAULTS.stake_threshold}."
    ),
    max_uids: int = typer.Option(None, help=f"Neurons on a subnet. New: {_DEFAULTS.max_uids}."),
    max_validators: int = typer.Option(None, help=f"Permits on a subnet. New: {_DEFAULTS.max_validators}."),
    burn: float = typer.Option(None, help=f"TAO, the first registration's price. New: {_DEFAULTS.burn}."),
    finality_lag: int = typer.Option(None, help=f"In blocks. New: {_DEFAULTS.finality_lag}."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print no line a block."),
) -> None:
    """Make blocks in the foreground until it is stopped; make the devnet first if there is none.

    A devnet that is there goes on where it stopped; then only --block-time may be given.

    Example: tensorage devnet up --block-time 0.25 --tempo 40
    """
    given = {
        name: value for name, value in locals().items() if name not in ("path", "quiet") and value is not None
    }
    _command(lambda: _up(_file(path), given, quiet=quiet))


def open_or_create(path: Path, given: dict[str, Any]) -> tuple[Store, bool]:
    """(the devnet in `path`, whether it was made now). `given` are fields of `Genesis`.

    Raises:
        UsageError: the devnet is there already and `given` asks for more than another block time.
    """
    if is_blank(path):
        return create(path, Genesis(**given)), True
    fixed = [field.name for field in fields(Genesis) if field.name in given and field.name != "block_time"]
    if fixed:
        raise UsageError(
            f"the devnet at {path} is made already, --{fixed[0].replace('_', '-')} comes too late",
            remedy="Leave it out, remove the file, or name another --path.",
        )
    store = Store(path)
    if "block_time" in given:
        Genesis(block_time=given["block_time"])
        store.set_meta("block_time", given["block_time"])
    return store, False


def _up(path: Path, given: dict[str, Any], *, quiet: bool) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with production(path):
        store, new = open_or_create(path, given)
        producer = Producer(store)
        facts = producer.maker.facts
        _say(f"devnet {url(path)} {'made' if new else f'goes on from block {store.head()}'}")
        _say(f"genesis={facts.genesis_hash} netuid={store.meta('netuid')} block_time={facts.block_time}")
        try:
            producer.run(stop, None if quiet else _print_block(store))
        finally:
            store.close()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_block(store: Store) -> Callable[[Block], None]:
    def show(block: Block) -> None:
        calls = [receipt for receipt in store.receipts(block.number) if receipt.position]
        failed = sum(receipt.error is not None for receipt in calls)
        _say(f"block={block.number} hash={block.hash[:14]} extrinsics={len(calls)} failed={failed}")

    return show


@devnet_app.command(short_help="Register a wallet's hotkey, paid by the faucet.")
def register(
    path: str = _PATH,
    netuid: int = _NETUID,
    name: str = _NAME,
    hotkey: str = _HOTKEY,
    wallets: Path = _WALLETS,
    create_wallet: bool = _CREATE,
    as_json: bool = _JSON,
) -> None:
    """Fund a wallet's coldkey from the faucet and register its hotkey on the subnet.

    Example: tensorage devnet register --wallet.name miner --wallet.hotkey default --create-wallet
    """

    async def work() -> None:
        file = _file(path)
        number = _netuid(file, netuid)
        wallet = faucet.open_wallet(name, hotkey, wallets, create=create_wallet)
        async with faucet.client(file) as chain:
            uid = await faucet.register(chain, wallet, number)
        address = wallet.hotkeypub.ss58_address
        if as_json:
            typer.echo(json.dumps({"netuid": number, "uid": uid, "hotkey": address}))
        else:
            typer.echo(f"{address} is uid {uid} on subnet {number}")

    _async(work)


@devnet_app.command(short_help="Stake to a wallet's hotkey, paid by the faucet.")
def stake(
    amount: float = typer.Argument(..., help="TAO, out of the faucet.", min=0.002),
    path: str = _PATH,
    netuid: int = _NETUID,
    name: str = _NAME,
    hotkey: str = _HOTKEY,
    wallets: Path = _WALLETS,
    as_json: bool = _JSON,
) -> None:
    """Fund a wallet's coldkey from the faucet and stake to its hotkey.

    Example: tensorage devnet stake 1000 --wallet.name validator
    """

    async def work() -> None:
        file = _file(path)
        number = _netuid(file, netuid)
        wallet = faucet.open_wallet(name, hotkey, wallets, create=False)
        async with faucet.client(file) as chain:
            await faucet.stake(chain, wallet, number, amount)
        address = wallet.hotkeypub.ss58_address
        if as_json:
            typer.echo(json.dumps({"netuid": number, "hotkey": address, "staked_tao": amount}))
        else:
            typer.echo(f"{amount:g} TAO staked to {address} on subnet {number}")

    _async(work)


@devnet_app.command()
def status(path: str = _PATH, netuid: int = _NETUID, as_json: bool = _JSON) -> None:
    """Show the head, the epoch and the neurons of a subnet.

    Example: tensorage devnet status --json
    """

    async def work() -> None:
        file = _file(path)
        number = _netuid(file, netuid)
        async with faucet.client(file) as chain:
            graph = await chain.subnets.metagraph(number)
            if graph is None:
                raise UsageError(f"there is no subnet {number}", remedy="Name another --netuid.")
            epoch = await chain.epochs.epoch_status(netuid=number)
            stamp = await chain.timestamp()
        facts = {
            "path": str(file),
            "producing": is_producing(file),
            "netuid": number,
            "block": graph.block,
            "seconds_since_block": round(time.time() - stamp.timestamp(), 1),
            "tempo": epoch["tempo"],
            "epoch": epoch["epoch_index"],
            "next_epoch_block": epoch["next_epoch_start_block"],
            "neurons": [_row(neuron) for neuron in graph.neurons],
        }
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            _table(facts)

    _async(work)


def _row(neuron: Any) -> dict[str, Any]:
    return {
        "uid": neuron.uid,
        "hotkey": neuron.hotkey,
        "stake": neuron.total_stake.rao / 10**9,
        "permit": neuron.validator_permit,
        "axon": neuron.axon,
        "incentive": round(neuron.incentive, 5),
        "dividends": round(neuron.dividends, 5),
        "emission": neuron.emission.rao / 10**9,
        "commitment": neuron.commitment.value if neuron.commitment else None,
    }


def _table(facts: dict[str, Any]) -> None:
    # Nothing is cut off: what is too wide for the terminal runs on in the next line.
    console = Console(soft_wrap=True)
    narrow = console.is_terminal and console.width < _WIDE
    console.width = max(console.width, _WIDE)
    state = "making blocks" if facts["producing"] else "stopped"
    console.print(
        f"{facts['path']}: {state}, block {facts['block']} ({facts['seconds_since_block']} s ago), "
        f"epoch {facts['epoch']}, the next at block {facts['next_epoch_block']}",
        highlight=False,
    )
    table = Table(title=f"subnet {facts['netuid']}", box=rich.box.SIMPLE, title_justify="left")
    columns = ("uid", "hotkey", "stake", "permit", "axon", "incentive", "dividends", "emission")
    for column in columns:
        table.add_column(column, justify="left" if column in ("hotkey", "axon") else "right", no_wrap=True)
    for row in facts["neurons"]:
        cells = {
            **row,
            "hotkey": f"{row['hotkey'][:8]}…" if narrow else row["hotkey"],
            "stake": f"{row['stake']:.3f}",
            "permit": "yes" if row["permit"] else "",
            "axon": row["axon"] or "",
            "emission": f"{row['emission']:.4f}",
        }
        table.add_row(*(str(cells[column]) for column in columns))
    console.print(table)
