"""The `dataset` command: owners record, publish and sell; buyers join, pay, fetch and verify.

Its commands live in modules of their own, which are imported when one of theirs is called.
"""

from __future__ import annotations

import sys

import typer

from ..config import run
from ..lazy import LazyGroup

_OWNER = "tensorage.dataset.owner_commands"
_MEMBERS = "tensorage.dataset.members_command"
_ANCHOR = "tensorage.dataset.anchor_command"
_KEYS = "tensorage.dataset.keys_command"
_PUBLISH = "tensorage.dataset.server.publish_command"
_APPROVE = "tensorage.dataset.server.approve_command"
_BUYER = "tensorage.dataset.buyer.buyer_commands"

#: Command -> (module with its typer app, one line of help), in the order of a dataset's life.
COMMANDS = {
    "from": (_OWNER, "Record a bundle as the next version of a dataset, new or known."),
    "version": (_OWNER, "Record a bundle as the next version of a known dataset."),
    "status": (_OWNER, "Show the versions and the members of a dataset."),
    "head": (_OWNER, "Print the signed statement of which version is the newest."),
    "members": (_MEMBERS, "List, add and revoke members."),
    "anchor": (_ANCHOR, "Put the heads of all your datasets on chain."),
    "keys": (_KEYS, "Show who signs, or hand datasets on to another key."),
    "publish": (_PUBLISH, "Serve a dataset to its members and sell access."),
    "approve": (_APPROVE, "Let somebody in who asked to join."),
    "buy": (_BUYER, "Fetch a version, verified; pay for it first if need be."),
    "join": (_BUYER, "Ask an owner for access, and keep the token."),
    "verify": (_BUYER, "Verify a version log: of yours, of a seller's, of a file."),
    "receipt": (_BUYER, "Show what was bought."),
}


class _Commands(LazyGroup):
    found_in = {name: (module, "app", summary) for name, (module, summary) in COMMANDS.items()}  # noqa: RUF012


app = typer.Typer(
    cls=_Commands,
    name="dataset",
    no_args_is_help=True,
    add_completion=False,
    help="Sell and buy datasets whose versions are signed.\n\nExample: dataset from ./bundle --name chats",
)


@app.callback()
def _root() -> None:
    """Options of `dataset` itself; there are none."""


def main() -> None:
    """Entry point of `python -m dataset`."""
    sys.exit(run(app, program="dataset"))
