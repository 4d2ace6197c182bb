"""The `gateway` command: who may store through this validator, and how much.

It works on files.sqlite beside the validator's ledger, while the validator runs or not; it needs no chain and
of the wallet only the hotkey's public half.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import config
from ..allocator.layout import directory_name
from ..chain.address import public_key, ss58
from ..chain.wallet import HotkeyPublic, load_public
from ..errors import UsageError
from .accounts import ApiKey, account_name, parse_quota
from .people import AccountRows
from .rows import Account, Kind
from .schema import FILES_NAME

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Let clients store through a validator.")
keys = typer.Typer(no_args_is_help=True, help="Accounts of clients: create, list, revoke.")
app.add_typer(keys, name="keys")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]


@keys.command()
def create(
    name: _Name,
    quota: Annotated[
        str, typer.Option(help="Bytes of shards that it may keep: 10GB, 500MB, 1TiB. A file takes N/K times.")
    ],
    hotkey: Annotated[
        str | None,
        typer.Option(metavar="SS58", help="The client signs with this hotkey; no API key is made."),
    ] = None,
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: _AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Make an account, and print its API key. The key is shown once and kept nowhere here.

    Example: tensorage gateway keys create alice --quota 10GB --wallet.name validator
    """
    who = account_name(name)
    amount = parse_quota(quota)
    ours = load_public(wallet_name, wallet_hotkey, wallet_path)
    path = _path(db_root_path, config.netuid_of(network, netuid, chain_endpoint), ours)
    key = None if hotkey is not None else ApiKey.new(ours.ss58)
    kind: Kind = "key" if key is not None else "hotkey"
    public = key.key.public_key if key is not None else _public(hotkey or "")
    with AccountRows(path) as rows:
        account = rows.add_account(who, kind, public, amount, int(time.time()))
    if as_json:
        typer.echo(json.dumps({**_document(account), "key": key.text() if key else None}))
        return
    typer.echo(f"account {who} may keep {amount} bytes of shards", err=True)
    if key is None:
        typer.echo(f"it signs with hotkey {hotkey}", err=True)
    else:
        typer.echo("its API key, which is not shown again:", err=True)
        typer.echo(key.text())


@keys.command("list")
def list_accounts(
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: _AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Show the accounts, what they may keep and what they do.

    Example: tensorage gateway keys list --json
    """
    ours = load_public(wallet_name, wallet_hotkey, wallet_path)
    path = _path(db_root_path, config.netuid_of(network, netuid, chain_endpoint), ours)
    with AccountRows(path) as rows:
        accounts = rows.accounts()
    if as_json:
        typer.echo(json.dumps([_document(account) for account in accounts]))
        return
    table = Table("name", "signs with", "quota", "used", "made", "revoked")
    for account in accounts:
        shown = _document(account)
        who = shown["hotkey"] or f"API key {shown['public_key'][:16]}…"
        table.add_row(
            account.name,
            who,
            str(account.quota),
            str(account.used),
            _when(account.created),
            "" if account.revoked is None else _when(account.revoked),
        )
    Console().print(table)


@keys.command()
def revoke(
    name: _Name,
    db_root_path: config.DbRootPath = [config.DEFAULT_DB_ROOT],  # noqa: B006 - typer copies it
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: _AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Refuse an account from now on. What it stored stays until it expires, for whoever has links.

    Example: tensorage gateway keys revoke alice
    """
    ours = load_public(wallet_name, wallet_hotkey, wallet_path)
    path = _path(db_root_path, config.netuid_of(network, netuid, chain_endpoint), ours)
    with AccountRows(path) as rows:
        account = rows.revoke(name, int(time.time()))
    typer.echo(json.dumps(_document(account)) if as_json else f"account {name} is revoked")


def _path(roots: list[Path], netuid: int, ours: HotkeyPublic) -> Path:
    """files.sqlite of the validator with that hotkey.

    Raises:
        UsageError: it has no directory there: it never ran.
    """
    directory = roots[0].expanduser() / directory_name(netuid, ours.public_key)
    if not directory.is_dir():
        raise UsageError(
            f"no validator with hotkey {ours.ss58} has run on subnet {netuid} with its data in {roots[0]}",
            remedy="Start it once, or give its --db_root_path, --netuid and --wallet flags",
        )
    return directory / FILES_NAME


def _public(hotkey: str) -> bytes:
    try:
        return public_key(hotkey)
    except ValueError as error:
        raise UsageError(f"{hotkey[:64]!r} is no SS58 address", remedy="Give a hotkey's address") from error


def _document(account: Account) -> dict[str, Any]:
    shown = asdict(account)
    shown["hotkey"] = ss58(account.public_key) if account.kind == "hotkey" else None
    shown["public_key"] = account.public_key.hex()
    return shown


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return config.run(app, arguments, program="tensorage gateway")
