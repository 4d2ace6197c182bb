"""The `allocate` command: fill disks before a miner is registered, or while it runs.

It shows a plan, asks, seals, verifies what is on disk, and commits to it where that can be done at once. It
may be stopped and started again at any time: what was finished is kept.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from rich.console import Console
from rich.table import Table

from . import config
from .allocator.disks import prepare_directory
from .allocator.layout import DATABASE, Identity, directory_name
from .allocator.plan import GIB, Headroom, Plan, Target, size_text
from .allocator.progress import Display
from .allocator.schema import read_identity
from .allocator.sealing import Control
from .allocator.store import Store
from .allocator.upkeep import Damage, DataDirectory, drop
from .chain.client import Chain
from .chain.genesis import known_genesis
from .chain.network import ChainSettings
from .chain.wallet import HotkeyPublic, load_hotkey, load_public
from .errors import ChainError, StorageError, UsageError
from .service.profile import profile_of
from .validator.ledger import LEDGER_NAME, LedgerIdentity, delete_ledger, open_ledger

CHAIN_SECONDS = 20.0
RESEALS = 2  # how often what verification finds is sealed again before the disk is given up
STOPPED = 130

app = typer.Typer(add_completion=False)


class Stopped(Exception):
    """The operator said no, or ended the command."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for."""

    roots: Sequence[Path]
    target: Target
    headroom: Headroom
    workers: int | None
    verify: bool
    prompt: bool
    restart: bool
    profile: int | None
    chain: ChainSettings
    wallet: tuple[str, str, str]  # name, hotkey, path


@app.command()
def allocate(
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    size_in_gb: config.SizeInGb = None,
    threshold: config.Threshold = None,
    headroom: Annotated[
        str, typer.Option("--headroom", help="What stays free on each disk: a share, or GiB.")
    ] = "5%",
    validator: Annotated[
        bool, typer.Option("--validator", help="Prepare only the validator's ledger.", show_default=False)
    ] = False,
    disable_prompt: Annotated[
        bool,
        typer.Option("--disable_prompt", "--disable-prompt", help="Do not ask.", show_default=False),
    ] = False,
    disable_verify: Annotated[
        bool,
        typer.Option(
            "--disable_verify", "--disable-verify", help="Do not read what is on disk.", show_default=False
        ),
    ] = False,
    restart: config.Restart = False,
    workers: config.Workers = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    profile: Annotated[
        int | None,
        typer.Option("--profile", min=0, max=1, help="Size of sectors.", show_default="1; 0 on a devnet"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one line of JSON.", show_default=False)
    ] = False,
    logging_debug: config.LoggingDebug = False,
    logging_trace: config.LoggingTrace = False,
    logging_dir: config.LoggingDir = config.DEFAULT_LOGGING_DIR,
    config_file: config.Config = None,
) -> int:
    """Fill disks with sealed sectors, before a miner is registered or while it runs.

    It can be stopped at any time and goes on where it was. A smaller size than before frees space.

    Example: tensorage allocate --db_root_path /mnt/a --db_root_path /mnt/b --size_in_gb 4000
    """
    config.setup_logging(config.LogSettings(logging_debug, logging_trace, logging_dir), "allocate")
    if not (logging_debug or logging_trace):
        logging.getLogger("tensorage.chain").setLevel(logging.ERROR)  # what matters is said once, below
    request = Request(
        roots=[path.expanduser() for path in db_root_path],
        target=Target.of(size_in_gb, threshold, default=config.DEFAULT_SIZE_IN_GB),
        headroom=Headroom.parse(headroom),
        workers=workers,
        verify=not disable_verify,
        prompt=not disable_prompt,
        restart=restart,
        profile=profile,
        chain=ChainSettings(network, chain_endpoint, config.netuid_of(network, netuid, chain_endpoint)),
        wallet=(wallet_name, wallet_hotkey, str(wallet_path)),
    )
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        outcome = _prepare_ledger(request, console) if validator else _Allocation(request, console).run()
    except Stopped as stopped:
        typer.echo(stopped, err=True)
        return STOPPED
    if as_json:
        typer.echo(json.dumps(outcome))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return config.run(app, arguments, program="tensorage allocate")


def _confirm(question: str, request: Request, console: Console) -> None:
    """Go on if the operator says yes.

    Raises:
        Stopped: anything else was said.
        UsageError: nobody is there to ask.
    """
    if not request.prompt:
        return
    if not config.confirmed(question, err=console.stderr):
        raise Stopped("stopped before anything of this was done")


def _find_genesis(request: Request, database: Path) -> bytes:
    """The chain's genesis hash: what the database says, a constant, or the chain's own answer.

    A restart is how one moves to another chain, so the database is asked last then.

    Raises:
        UsageError: the database cannot be used, or nobody knows.
    """
    if not request.restart:
        known = read_identity(database)
        if known is not None:
            return known.genesis
    if constant := known_genesis(request.chain):
        return constant
    try:
        return anyio.run(_ask_genesis, request.chain)
    except UsageError as away:
        try:
            known = read_identity(database)
        except UsageError:
            known = None
        if known is None:
            raise away from None
        return known.genesis


async def _ask_genesis(settings: ChainSettings) -> bytes:
    try:
        with anyio.fail_after(CHAIN_SECONDS):
            async with Chain(settings) as chain:
                return chain.genesis_hash
    except TimeoutError as error:
        raise UsageError(
            f"chain {settings.label} did not answer within {CHAIN_SECONDS:.0f} s",
            remedy="Check --subtensor.network and --subtensor.chain_endpoint",
        ) from error


def _prepare_ledger(request: Request, console: Console) -> dict[str, Any]:
    """Make the validator's ledger; it needs no sectors."""
    key = load_public(*request.wallet)
    directory = request.roots[0] / directory_name(request.chain.netuid, key.public_key)
    path = prepare_directory(directory) / LEDGER_NAME
    if request.restart and path.exists():
        _confirm(f"Drop {path} with every receipt and score in it?", request, console)
        delete_ledger(path)
    genesis = known_genesis(request.chain) or anyio.run(_ask_genesis, request.chain)
    open_ledger(path, LedgerIdentity(genesis, request.chain.netuid, key.public_key)).close()
    console.print(f"the validator's ledger is ready: {path}", markup=False)
    return {"ledger": str(path)}


class _Allocation:
    """One run of the command for a miner."""

    def __init__(self, request: Request, console: Console) -> None:
        self._request = request
        self._console = console
        self._control = Control()

    def run(self) -> dict[str, Any]:
        """Plan, ask, fill, verify, commit; returns the outcome."""
        request = self._request
        key = load_public(*request.wallet)
        identity = self._identity(key)
        if request.restart:
            self._drop(identity)
        with DataDirectory(request.roots, identity) as data, data.filling():
            self._recover(data)
            plan = data.plan(request.target, request.headroom)
            self._show(plan, key)
            if plan.changes:
                _confirm("Go on?", request, self._console)
            with self._signals():
                data.apply(plan)
                self._fill(data)
                damaged = self._verify(data) if request.verify else []
            committed = self._commit(data.store)
            counts = data.store.counts()
            size = counts.sealed * identity.sectors.size
            self._say(f"{counts.sealed} sectors are sealed, {size_text(size)}")
            return {
                "directory": str(data.store.path.parent),
                "sectors": counts.sealed,
                "bytes": size,
                "added": len(plan.add),
                "removed": len(plan.remove),
                "damaged": [damage.sector.index for damage in damaged],
                "short_by": plan.short_by,
                "commitment": committed,
            }

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _identity(self, key: HotkeyPublic) -> Identity:
        request = self._request
        netuid = request.chain.netuid
        database = request.roots[0] / directory_name(netuid, key.public_key) / DATABASE
        genesis = _find_genesis(request, database)
        number = request.profile
        if number is None and not request.restart:
            known = read_identity(database)
            number = known.profile if known else None
        number = profile_of(number, request.chain)
        return Identity(genesis, netuid, key.public_key, number)

    def _drop(self, identity: Identity) -> None:
        request = self._request
        name = identity.directory_name
        places = ", ".join(str(root / name) for root in request.roots if (root / name).is_dir())
        if places:
            _confirm(f"Drop the database and every sector of {places}?", request, self._console)
            dropped = drop(request.roots, identity)
            self._say(f"{dropped.files} sector files were removed")
            if not dropped.chain_kept:
                self._say(
                    "the commitments could not be read, so their numbers start anew: "
                    "validators that know the old ones will not accept them from this hotkey"
                )

    def _recover(self, data: DataDirectory) -> None:
        found = data.recover()
        if found.removed:
            self._say(f"{len(found.removed)} unfinished files were removed")
        for sector in found.lost:
            self._say(f"sector {sector.index} is gone: {sector.path} is not there")
        for sector in found.damaged:
            self._say(f"sector {sector.index} is damaged: {sector.path} {sector.reason}")
        for shard in found.shards:
            self._say(f"a client's shard is lost: {shard.path} {shard.why}")

    def _show(self, plan: Plan, key: HotkeyPublic) -> None:
        table = Table(title=f"Sectors of {size_text(plan.profile.size)} for {key.ss58}")
        for column in ("disk", "free GiB", "stays free", "keep", "seal", "remove", "free after"):
            table.add_column(column, justify="left" if column == "disk" else "right", overflow="fold")
        for d in plan.disks:
            table.add_row(
                str(d.disk.directory.parent) + ("" if d.disk.named else " (not named: left alone)"),
                f"{d.disk.free / GIB:.1f}",
                f"{d.headroom / GIB:.1f}",
                str(d.keep),
                str(d.seal),
                str(d.remove),
                f"{d.free_after / GIB:.1f}",
            )
        self._console.print(table)
        self._say(f"{plan.sectors} sectors, {size_text(plan.size)}; {len(plan.to_seal)} to seal")
        if plan.short_by:
            self._say(f"{plan.short_by} sectors less than asked for: the disks have no room for them")

    def _fill(self, data: DataDirectory) -> None:
        missing = len(data.unsealed())
        with Display("sealing", missing, data.identity.sectors.size, self._console) as display:
            if not data.fill(self._request.workers, self._control, display.observe):
                raise Stopped("stopped; finished sectors are kept, and the same command goes on from here")
        if not data.give_back(self._request.workers, self._control):
            raise Stopped("stopped before the filler of shards that are over was sealed again")
        data.settle()

    def _verify(self, data: DataDirectory) -> list[Damage]:
        """Read everything; seal again what is damaged, and read that again."""
        found: list[Damage] = []
        only: list[int] | None = None
        for _ in range(RESEALS + 1):
            count = len(only) if only is not None else data.store.counts().sealed
            with Display("verifying", count, data.identity.sectors.size, self._console) as display:
                damaged = data.verify(self._request.workers, self._control, display.observe, only=only)
            if self._control.stopped:
                raise Stopped("stopped before everything was verified")
            if not damaged:
                break
            for damage in damaged:
                self._say(f"sector {damage.sector.index} is damaged: {damage.sector.path} {damage.why}")
            found += damaged
            only = [damage.sector.index for damage in damaged]
            self._fill(data)
        else:
            raise StorageError(
                f"{found[-1].sector.path} does not keep what is written to it",
                remedy="Replace its disk, and name another one with --db_root_path",
            )
        for shard in data.verify_shards(self._control):
            self._say(f"a client's shard is damaged, and given up: {shard.path} {shard.why}")
        return found

    def _commit(self, store: Store) -> int | None:
        """Commit where it can be done now; returns the commitment's seq."""
        try:
            hotkey = load_hotkey(*self._request.wallet)
            head, tempo = anyio.run(_ask_head, self._request.chain)
        except (ChainError, UsageError, TimeoutError) as error:
            why = str(error) or "the chain did not answer in time"
            self._say(f"no commitment was made ({why}); the miner makes it")
            return None
        newest = store.commitment()
        if newest is not None and head < newest.commitment.block_number + tempo:
            self._say("there is a commitment in this tempo already; the miner makes the next one")
            return None
        signed = store.commit(hotkey.sign, head)
        if signed is None:
            return None
        commitment = signed.commitment
        self._say(f"commitment {commitment.seq} covers {commitment.sector_count} sectors")
        return commitment.seq

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the work in order."""
        before = {
            number: signal.signal(number, lambda *_: self._control.stop())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _ask_head(settings: ChainSettings) -> tuple[int, int]:
    """(height, tempo) of the chain now."""
    with anyio.fail_after(CHAIN_SECONDS):
        async with Chain(settings) as chain:
            return (await chain.head()).number, (await chain.parameters()).tempo
