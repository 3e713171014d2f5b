"""A verb that is a command and has commands: `cm2 judge IN …` and `cm2 judge calibrate …`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Verb(TyperGroup):
    """A group that runs the command of its own name where none of its others is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command where the line does not."""
        own = self.name or ""
        if not args or args[0] not in self.commands or args[0] == own:
            args = [own, *args]
        found: list[str] = super().parse_args(ctx, args)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command; the one of the group's own name is not named twice in its usage line."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == self.name else name, command, rest
