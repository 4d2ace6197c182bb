"""Groups of commands whose modules are imported when they are called, so that an overview waits for none."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class LazyGroup(TyperGroup):
    """A group that knows of its commands where they are and one line of help.

    Attributes:
        found_in: command -> (module, its typer app, help), in the order in which they are listed. An app that
            has a command of that name stands for that command, any other for itself.
    """

    found_in: ClassVar[dict[str, tuple[str, str, str]]]
    _overview = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._overview = True
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.found_in)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.found_in:
            return None
        module, name, summary = self.found_in[cmd_name]
        if self._overview:
            return TyperCommand(cmd_name, help=summary)
        found = get_command(getattr(importlib.import_module(module), name))
        command = getattr(found, "commands", {}).get(cmd_name, found)
        command.name = cmd_name
        return command
