"""The commands of clients: put, get, ls, info, rm, share, verify. Flags in, outcome out.

Exit codes: 0 done; 1 it failed, or (verify) some shards are not good; 2 something that the user can put
right; 3 (verify) the file cannot be read now; 130 interrupted. What a script reads is on stdout, all else on
stderr.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import config
from ..chain.network import ChainSettings
from ..errors import UsageError
from ..gateway.accounts import ApiKey
from . import owning
from .catalog import Catalog
from .checking import Report, check
from .gateway import Access
from .get import Get
from .home import Home
from .known import known_file, safe_name
from .meter import Meter
from .put import Put, Request, name_of
from .reach import reaching

put_app = typer.Typer(add_completion=False)
get_app = typer.Typer(add_completion=False)
ls_app = typer.Typer(add_completion=False)
info_app = typer.Typer(add_completion=False)
rm_app = typer.Typer(add_completion=False)
share_app = typer.Typer(add_completion=False)
verify_app = typer.Typer(add_completion=False)

DEFAULT_HOME = Path("~/.tensorage/client")

HomePath = Annotated[
    Path,
    typer.Option(
        "--home", envvar="TENSORAGE_HOME", help="Where the keys of your files are kept; only you may read it."
    ),
]
GatewayUrl = Annotated[
    str | None,
    typer.Option(
        "--gateway",
        envvar="TENSORAGE_GATEWAY",
        metavar="URL",
        help="The validator to go through, http://ip:port.",
        show_default="found on the chain",
    ),
]
ApiKeyText = Annotated[
    str | None,
    typer.Option(
        "--api_key",
        "--api-key",
        envvar="TENSORAGE_API_KEY",
        metavar="KEY",
        help="Your key for the gateway, tsk1_...",
        show_default="the wallet's hotkey",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A file's name or id.")]
What = Annotated[str, typer.Argument(metavar="NAME", help="A file's name, its id, or a link file.")]


def access_of(
    gateway: str | None,
    api_key: str | None,
    wallet: tuple[str, str, Path],
    chain: tuple[str, str | None, int | None],
) -> Access:
    """What the flags say: a gateway's URL, an API key, a wallet (name, hotkey, path), a chain (network,
    endpoint, netuid).

    Raises:
        UsageError: the API key is none.
    """
    network, endpoint, netuid = chain

    def settings() -> ChainSettings:
        return ChainSettings(network, endpoint, config.netuid_of(network, netuid, endpoint))

    return Access(
        url=gateway or None,
        api_key=ApiKey.parse(api_key) if api_key else None,
        wallet=wallet,
        chain=settings,
        local=ChainSettings(network, endpoint, netuid or 0).is_local,
    )


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _debug(debug: bool) -> None:
    if debug:
        config.setup_logging(config.LogSettings(debug=True), "client")


def _open(home: Path) -> tuple[Home, Catalog]:
    where = Home(home)
    catalog = Catalog(where.catalog)
    catalog.expire(int(time.time()))
    return where, catalog


def _if_there(home: Path) -> Catalog | None:
    """The catalog, where there is one: a link is fetched without."""
    return _open(home)[1] if (home.expanduser() / "files.sqlite").exists() else None


@put_app.command()
def put(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR|-", help="What to put; - for stdin.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it.", show_default="the file's own name")
    ] = None,
    data_shards: Annotated[
        int | None,
        typer.Option(
            "--data-shards",
            "--data_shards",
            min=1,
            max=256,
            help="Shards of a stripe that bring it back.",
            show_default="the gateway's advice, 10",
        ),
    ] = None,
    parity_shards: Annotated[
        int | None,
        typer.Option(
            "--parity-shards",
            "--parity_shards",
            min=0,
            max=255,
            help="Shards of a stripe that may be lost.",
            show_default="the gateway's advice, 20",
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="For how long to keep it: 12h, 30d, 4w, 1y.")] = "30d",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Take the name from a file that has it, once this one is stored; give up an unfinished "
            "upload of something else.",
            show_default=False,
        ),
    ] = False,
    min_shards: Annotated[
        int | None,
        typer.Option(
            "--min-shards",
            "--min_shards",
            min=1,
            max=256,
            help="Fail where fewer shards of a stripe find a miner.",
            show_default="data shards",
        ),
    ] = None,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    logging_debug: config.LoggingDebug = False,
    config_file: config.Config = None,
) -> None:
    """Encrypt a file, a directory or a pipe here, and store it with many miners.

    If it breaks off, the same command goes on with it. It is stored when this ends with exit code 0.

    Example: tensorage put photos --name photos --expires 1y --gateway http://203.0.113.7:8091
    """
    _debug(logging_debug)
    if (data_shards is None) != (parity_shards is None):
        raise UsageError(
            "one of --data-shards and --parity-shards is missing", remedy="Name both, or neither"
        )
    code = None if data_shards is None or parity_shards is None else (data_shards, parity_shards)
    request = Request(path, name_of(path, name), code, config.seconds_of(expires), replace, min_shards)
    access = access_of(
        gateway, api_key, (wallet_name, wallet_hotkey, wallet_path), (network, chain_endpoint, netuid)
    )
    where, catalog = _open(home)
    with catalog:
        outcome = asyncio.run(Put(where, catalog, access, request, _console(), _tell, quiet=as_json).run())
    if as_json:
        typer.echo(json.dumps(outcome))
    else:
        _tell(
            f"{outcome['name']} is stored: {outcome['size']} bytes, {outcome['data_shards']} of "
            f"{outcome['data_shards'] + outcome['parity_shards']} shards bring it back"
        )


@get_app.command()
def get(
    what: What,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="Where to; - for stdout.", show_default="its name"
        ),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--range", metavar="A-B", help="Bytes A to B only, both inclusive; to stdout without -o."
        ),
    ] = None,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    logging_debug: config.LoggingDebug = False,
    config_file: config.Config = None,
) -> None:
    """Fetch a file, verified from the first byte to the last. A link file needs no account.

    If it breaks off, the same command goes on with it. With -o -, the outcome of --json is on stderr.

    Example: tensorage get photos -o /tmp/photos
    """
    _debug(logging_debug)
    access = access_of(gateway, api_key, ("", "", Path()), (network, chain_endpoint, netuid))
    catalog = _if_there(home)
    try:
        fetch = Get(catalog, access, _console(), _tell, output=output, span=span, quiet=as_json)
        outcome = asyncio.run(fetch.run(what))
    finally:
        if catalog is not None:
            catalog.close()
    if as_json:
        typer.echo(json.dumps(outcome), err=outcome["path"] is None)
    elif outcome["path"] is not None:
        _tell(f"{outcome['path']}: {outcome['size']} bytes")


@ls_app.command()
def ls(
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Removed ones and unfinished uploads too.", show_default=False)
    ] = False,
    home: HomePath = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """List your files, as this machine's catalog has them. Asks nobody.

    Example: tensorage ls --all
    """
    with _open(home)[1] as catalog:
        rows = [owning.listed(row) for row in catalog.files() if all_ or row.state == "stored"]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "bytes", "kind", "code", "state", "stored", "expires", "id", box=None)
    for row in rows:
        code = f"{row['data_shards']} of {row['data_shards'] + row['parity_shards']}"
        table.add_row(
            row["name"],
            "" if row["size"] is None else str(row["size"]),
            row["kind"],
            code,
            row["state"],
            _day(row["created"]),
            _day(row["expires"]),
            row["id"],
        )
    _print(table)


@info_app.command()
def info(
    what: What,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Show a file, where its shards lie, and how they are as far as the validator knows.

    Example: tensorage info photos
    """
    access = access_of(gateway, api_key, ("", "", Path()), (network, chain_endpoint, netuid))
    found = _with_catalog(home, lambda catalog: asyncio.run(owning.info(catalog, access, what)))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for field in ("name", "id", "kind", "state", "size", "sha256"):
        typer.echo(f"{field}: {found[field]}")
    typer.echo(f"code: {found['data_shards']} of {found['data_shards'] + found['parity_shards']} shards")
    typer.echo(f"stored: {_day(found['created'])}, until {_day(found['expires'])}")
    typer.echo(f"gateway: {found['gateway']['url']} of {found['gateway']['hotkey']}")
    table = Table("stripe", "shard", "miner", "address", "health", "checked", box=None)
    for stripe in found["stripes"]:
        for shard in stripe["shards"]:
            checked = "" if shard["checked"] is None else _day(shard["checked"])
            place = (shard["hotkey"], shard["address"] or "", shard["health"], checked)
            table.add_row(str(stripe["number"]), str(shard["number"]), *place)
    _print(table)


@rm_app.command()
def rm(
    name: Name,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring a removed file back, within 7 days.", show_default=False)
    ] = False,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Remove a file, or drop an unfinished upload. For 7 days a file can be brought back.

    Example: tensorage rm photos
    """
    access = access_of(
        gateway, api_key, (wallet_name, wallet_hotkey, wallet_path), (network, chain_endpoint, netuid)
    )
    where, catalog = _open(home)
    with catalog:
        outcome = asyncio.run(owning.remove(where, catalog, access, name, undo=undo, tell=_tell))
    if as_json:
        typer.echo(json.dumps(outcome))
    elif outcome["state"] == "trash":
        _tell(f"{name} is removed; bring it back until {_day(outcome['until'])}: tensorage rm --undo {name}")
    elif outcome["state"] == "stored":
        _tell(f"{name} is back")


@share_app.command()
def share(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="LINK", help="Where to; - for stdout.", show_default="NAME.link"
        ),
    ] = None,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Write a link file: whoever has it can fetch and read this file, and needs nothing else.

    Example: tensorage share photos -o photos.link
    """
    access = access_of(gateway, api_key, ("", "", Path()), (network, chain_endpoint, netuid))
    with _open(home)[1] as catalog:
        link = asyncio.run(owning.share(catalog, access, name, _tell))
        target = output or Path(safe_name(known_file(catalog, name).manifest) + ".link")
    if str(target) == "-":
        typer.echo(link.decode("ascii"), nl=False)
        return
    if output is None and target.exists():
        raise UsageError(f"{target} is there already", remedy=f"Overwrite it with -o {target}")
    owning.write_secret(target, link)
    if as_json:
        typer.echo(json.dumps({"link": str(target.absolute()), "bytes": len(link)}))
    else:
        _tell(f"{target}: give it only to whoever may read {name}; it cannot be taken back")


@verify_app.command()
def verify(
    what: What,
    home: HomePath = DEFAULT_HOME,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Have every miner prove that it keeps its shards of a file now, without fetching them.

    Exits with 0 when all shards are good, 1 when some are not, 3 when the file cannot be read now.

    Example: tensorage verify photos
    """
    access = access_of(gateway, api_key, ("", "", Path()), (network, chain_endpoint, netuid))

    async def challenge(catalog: Catalog | None) -> Report:
        known = known_file(catalog, what)
        total = len(known.manifest.stripes) * known.manifest.shards
        async with reaching(known, access, catalog) as reach:
            with Meter(f"verifying {what}", total, _console(), quiet=as_json, counted=True) as meter:
                return await check(known, reach, meter.add, _tell)

    report = _with_catalog(home, lambda catalog: asyncio.run(challenge(catalog)))
    _show(report, as_json)
    raise typer.Exit(report.exit_code)


def _show(report: Report, as_json: bool) -> None:
    manifest, good = report.manifest, report.good
    if as_json:
        outcome: dict[str, Any] = {
            "name": manifest.name,
            "id": manifest.id.hex(),
            "data_shards": manifest.data_shards,
            "shards": manifest.shards,
            "stripes": [{"number": number, "good": count} for number, count in good.items()],
            "failed": [
                {"stripe": bad.stripe, "number": bad.number, "hotkey": bad.hotkey, "reason": bad.reason}
                for bad in report.failed
            ],
            "verdict": {0: "full", 1: "readable", 3: "lost"}[report.exit_code],
        }
        typer.echo(json.dumps(outcome))
        return
    if report.failed:
        table = Table("stripe", "shard", "miner", "reason", box=None)
        for bad in report.failed:
            table.add_row(str(bad.stripe), str(bad.number), bad.hotkey, bad.reason)
        _print(table)
    least = min(good.values())
    typer.echo(
        f"{sum(good.values())} of {len(good) * manifest.shards} shards are good; the stripe with the fewest "
        f"has {least} of {manifest.shards}, {manifest.data_shards} are enough"
    )


def _print(table: Table) -> None:
    """Print on stdout, uncut where it is no terminal."""
    Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False).print(table)


def _with_catalog(home: Path, work: Callable[[Catalog | None], Any]) -> Any:
    catalog = _if_there(home)
    try:
        return work(catalog)
    finally:
        if catalog is not None:
            catalog.close()


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
