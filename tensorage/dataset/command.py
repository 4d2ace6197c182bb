"""The `dataset` command: owners record, publish and sell; buyers join, pay, fetch and verify.

Its commands live in modules of their own, which are imported when one of theirs is called.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ..config import run

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


class _Lazy(TyperGroup):
    """A group whose commands are imported when they are asked for; its overview imports none."""

    _overview = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._overview = True
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        if self._overview:
            return typer.core.TyperCommand(cmd_name, help=summary)
        found = get_command(importlib.import_module(module).app)
        inner = getattr(found, "commands", None)  # an app with one command is that command
        command = inner[cmd_name] if inner is not None and cmd_name in inner else found
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Lazy,
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
