"""The command that lists, adds, revokes and promotes the members of a dataset."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import config
from ..errors import UsageError
from .members import Member, token_hash
from .options import DEFAULT_HOME, AsJson, DatasetHome, DatasetId, day, lifetime, open_store
from .store import Store

app = typer.Typer(add_completion=False)


@app.command()
def members(
    id: DatasetId,
    add: Annotated[
        str | None, typer.Option("--add", metavar="LABEL", help="Make a member, and print its token once.")
    ] = None,
    revoke: Annotated[
        str | None,
        typer.Option("--revoke", metavar="HASH|LABEL", help="Refuse a member's token from now on."),
    ] = None,
    grant: Annotated[
        str | None,
        typer.Option("--grant", metavar="HASH|LABEL", help="Let a member fetch up to --max-version."),
    ] = None,
    max_version: Annotated[
        int | None,
        typer.Option(
            "--max-version", min=1, help="The highest version that a token opens.", show_default="the newest"
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="How long a new token is good: 12h, 30d, 1y."),
    ] = None,
    downloads: Annotated[
        bool, typer.Option("--downloads", help="List what was fetched by whom.", show_default=False)
    ] = False,
    home: DatasetHome = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """List the members of a dataset; or add, revoke or promote one. A server that is running knows at once.

    HASH is at least the first 8 digits of a token's hash, as the list shows it.

    Example: dataset members chats --add alice --expires 30d
    """
    if sum(given is not None for given in (add, revoke, grant)) + downloads > 1:
        raise UsageError(
            "--add, --revoke, --grant and --downloads are four things", remedy="Name one of them"
        )
    if max_version is not None and add is None and grant is None:
        raise UsageError("--max-version is of a token", remedy="Name whose, with --add or --grant")
    if expires is not None and add is None:
        raise UsageError("--expires is of a new token", remedy="Name whose, with --add")
    now = int(time.time())
    with open_store(home, id=id) as store:
        newest = max(store.dataset(id).versions, 1)
        if add is not None:
            _add(store, id, add, max_version or newest, lifetime(expires, now), as_json)
        elif revoke is not None:
            _show_one(store.revoke(id, revoke), "is revoked", as_json, now)
        elif grant is not None:
            granted = store.grant(id, grant, max_version or newest)
            _show_one(granted, f"may fetch versions 1 to {granted.max_version}", as_json, now)
        elif downloads:
            _list_downloads(store, id, as_json)
        else:
            _list(store.members(id), as_json, now)


def _add(store: Store, id: str, label: str, max_version: int, expires: int | None, as_json: bool) -> None:
    token = store.mint(id, label=label, max_version=max_version, expires=expires)
    if as_json:
        document = {
            "token": token,
            "hash": token_hash(token).hex(),
            "maxVersion": max_version,
            "expires": expires,
        }
        typer.echo(json.dumps(document))
        return
    until = f", until {day(expires)} UTC" if expires else ""
    typer.echo(f"a token for versions 1 to {max_version} of {id}{until}; it is not shown again:", err=True)
    typer.echo(token)


def _show_one(member: Member, what: str, as_json: bool, now: int) -> None:
    if as_json:
        typer.echo(json.dumps(_document(member, now)))
    else:
        typer.echo(f"{member.label or 'a member'} ({member.hash.hex()[:16]}) {what}")


def _list(members: list[Member], as_json: bool, now: int) -> None:
    if as_json:
        typer.echo(json.dumps([_document(member, now) for member in members]))
        return
    table = Table(
        "hash", "label", "up to", "state", "since", "expires", "paid", "downloads", "bytes", box=None
    )
    for member in members:
        table.add_row(
            member.hash.hex()[:16],
            member.label,
            f"v{member.max_version}",
            _state(member, now),
            day(member.created),
            day(member.expires),
            "" if member.paid is None else str(member.paid),
            str(member.requests),
            str(member.sent),
        )
    _print(table)


def _list_downloads(store: Store, id: str, as_json: bool) -> None:
    found = store.downloads(id)
    if as_json:
        rows = [
            {
                "member": row.member.hex(),
                "label": row.label,
                "version": row.version,
                "start": row.start,
                "stop": row.stop,
                "time": row.time,
            }
            for row in found
        ]
        typer.echo(json.dumps(rows))
        return
    table = Table("time", "member", "label", "version", "from byte", "to", box=None)
    for row in found:
        span = str(row.start), str(row.stop)
        table.add_row(day(row.time), row.member.hex()[:16], row.label, f"v{row.version}", *span)
    _print(table)


def _state(member: Member, now: int) -> str:
    if member.revoked is not None:
        return "revoked"
    return "expired" if member.expires is not None and member.expires <= now else "good"


def _document(member: Member, now: int) -> dict[str, Any]:
    return {
        "hash": member.hash.hex(),
        "label": member.label,
        "maxVersion": member.max_version,
        "state": _state(member, now),
        "created": member.created,
        "expires": member.expires,
        "revoked": member.revoked,
        "paid": None if member.paid is None else str(member.paid),
        "requests": member.requests,
        "bytes": member.sent,
    }


def _print(table: Table) -> None:
    """Print on stdout, uncut where it is no terminal."""
    Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False).print(table)
