"""The `tensorage` command: every part of the project under one name.

Subcommands are imported when they are called, so that `tensorage --help` does not wait for the chain's SDK,
torch or the sealing kernel.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .config import read_json, run
from .lazy import LazyGroup

#: Subcommand -> (module, its typer app, one line of help).
COMMANDS = {
    "allocate": ("tensorage.allocate", "app", "Fill disks with sealed sectors."),
    "conformance": ("tensorage.cli", "conformance_app", "Print the protocol's test vector for an input."),
    "dataset": ("tensorage.dataset.command", "app", "Sell and buy datasets whose versions are signed."),
    "devnet": ("tensorage.demo.command", "app", "A local chain, and the whole subnet on it."),
    "gateway": ("tensorage.gateway.keys_command", "app", "Let clients store through a validator."),
    "get": ("tensorage.client.command", "get_app", "Fetch a file."),
    "info": ("tensorage.client.command", "info_app", "Show a file, its shards and their health."),
    "ls": ("tensorage.client.command", "ls_app", "List your files."),
    "miner": ("tensorage.miner.command", "app", "Keep sectors and answer challenges."),
    "put": ("tensorage.client.command", "put_app", "Store a file, a directory or a pipe."),
    "receipts": ("tensorage.validator.receipts_command", "app", "Export and verify audit receipts."),
    "rm": ("tensorage.client.command", "rm_app", "Remove a file, or bring it back."),
    "share": ("tensorage.client.command", "share_app", "Write a link with which others fetch a file."),
    "simulate": ("tensorage.simulate", "simulate_app", "Try out consensus on a scenario."),
    "validator": ("tensorage.validator.command", "app", "Challenge miners, score them, set weights."),
    "verify": ("tensorage.client.command", "verify_app", "Have miners prove that they keep a file."),
}


class _Commands(LazyGroup):
    found_in = COMMANDS


app = typer.Typer(
    cls=_Commands,
    name="tensorage",
    no_args_is_help=True,
    add_completion=False,
    help="A storage subnet: seal, prove, verify, pay.\n\nExample: tensorage devnet demo",
)
conformance_app = typer.Typer(add_completion=False)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tensorage {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options of `tensorage` itself."""


@conformance_app.command()
def conformance(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.json", help="Ingredients; - for stdin.")],
) -> None:
    """Print the vector of INPUT.json, to be compared with another implementation's.

    INPUT.json has {genesis, netuid, miner, validator, profile, sectors: [0, 1, ...], commitment:
    {seq, prev_hash, block}, challenge: {block_hash, round, hops}}, bytes in lower-case hex. For the log of a
    dataset it has {kind: "dataset-v2", id, owner, entries: [{manifest_hash, file_hash, size, chunk_root,
    time}, ...]} or {kind: "dataset-v1", private_key, entries: [{manifest_hash, file_hash, size}, ...]}.

    Example: tensorage conformance tests/vectors/pos-v1-dev.input.json
    """
    from .conformance import vector  # noqa: PLC0415 - loads the sealing kernel

    typer.echo(json.dumps(vector(read_json(input_file)), indent=1))


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(app, program="tensorage"))
