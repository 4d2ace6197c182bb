"""The `receipts` command: what a validator recorded, as a file that anybody can check."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from ..chain.address import public_key
from ..chain.auth import verify as verify_signature
from ..config import read_json
from ..errors import UsageError
from . import export as exports

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Export and verify audit receipts.")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of receipts; - for stdin.")],
    skip_audits: Annotated[
        bool, typer.Option("--skip_audits", "--skip-audits", help="Do not seal sectors again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check signatures, the chain of hashes, and every verdict whose evidence is in FILE. Needs no network.

    Exits with 0 when all of it is true, with 1 and the first thing that is not otherwise.

    Example: tensorage receipts verify receipts.json
    """
    document = read_json(file)
    with Progress(transient=True, disable=as_json or not sys.stderr.isatty()) as bar:
        task = bar.add_task("receipts", total=None)
        found = exports.check(
            document,
            verify_signature,
            seal_audits=not skip_audits,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    counts = ", ".join(f"{count} {word}" for word, count in found.verdicts.items() if count)
    typer.echo(f"{found.receipts} receipts, {found.first} to {found.last}: {counts or 'none'}")
    typer.echo(
        f"signatures and {found.links} links are right, {found.gaps} gaps; "
        f"{found.repeated} verdicts repeated, {found.unproven} wrong ones come without evidence"
    )


@app.command()
def export(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="A validator.sqlite; may be in use.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; stdout by default.")
    ] = None,
    miner: Annotated[str | None, typer.Option(help="SS58 hotkey: only receipts about this miner.")] = None,
    start: Annotated[int, typer.Option("--from", min=1, help="The first receipt.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
) -> None:
    """Write the receipts of a validator, with commitments and evidence, as JSON.

    Example: tensorage receipts export ~/tensorage-db/sn7-5F.../validator.sqlite -o receipts.json
    """
    try:
        key = None if miner is None else public_key(miner)
    except ValueError as error:
        raise UsageError(f"{miner!r} is no SS58 address", remedy="Give a hotkey's address") from error
    text = json.dumps(exports.export(ledger, start=start, limit=limit, miner=key), indent=1)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written: {error.strerror}", remedy="Name another file"
        ) from error
