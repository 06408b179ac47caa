"""What the commands that manage keys, projects and users share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import one_or_more, without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import printing, visible

if TYPE_CHECKING:
    from gateway.core.paging import Page
    from gateway.settings import Settings
    from gateway.storage.audit import By
    from gateway.storage.directory import Directory

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Command = Callable[[Any, argparse.Namespace], int]

JSON = dict[str, Any]

HELP = """\
Works on the database of the data folder, whether the gateway runs or not; what changes is felt by a gateway that runs
within 5 s. Each change is in the audit, as done by `cli`.

Exit status: 0; 1 when there is nothing of that id, it cannot be done, or the database cannot be used; 2 when the
arguments or the settings cannot be used."""


class Group:
    """A command that has commands of its own.

    Args:
        commands: where it is added.
        name: of it.
        help: one line.
    """

    def __init__(self, commands: Commands, name: str, help: str) -> None:
        parser = commands.add_parser(name, help=help, description=f"{help}.\n\n{HELP}", formatter_class=RAW)
        parser.set_defaults(run=lambda _options: without_command(parser))
        self._own = parser.add_subparsers(metavar="command")

    def add(self, name: str, help: str, command: Command) -> argparse.ArgumentParser:
        """Add one of its commands, and return its parser."""
        return add(self._own, name, help, command)


RAW = argparse.RawDescriptionHelpFormatter


def add(
    commands: Commands, name: str, help: str, command: Command, opening: Callable[[Settings], Any] | None = None
) -> argparse.ArgumentParser:
    """Add a command that works on the directory, or on what `opening` makes of the settings; return its parser."""
    parser = commands.add_parser(name, help=help, description=f"{name}: {help}.\n\n{HELP}", formatter_class=RAW)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=lambda options: _run(command, options, opening or directory))
    return parser


def add_paging(parser: argparse.ArgumentParser, after: Callable[[str], object] = str) -> None:
    """Add what a list is cut by."""
    parser.add_argument("--limit", type=one_or_more, default=50, metavar="N", help="how many at most (50)")
    parser.add_argument("--after", type=after, metavar="ID", help="go on behind this one")


def by() -> By:
    """Who does what is done here: whoever may read the data folder, which is more than any key may."""
    from gateway.storage.audit import By  # noqa: PLC0415  # SQLAlchemy takes a moment

    return By("cli")


def print_json(document: JSON) -> None:
    """Print one line of ASCII."""
    print(json.dumps(document).replace("\x7f", "\\u007f"))


def tell(text: str) -> None:
    """Say something to the person at the terminal, beside what is printed for programs."""
    print(visible(text), file=sys.stderr)


def tell_of_more(page: Page[Any], last: str) -> None:
    """Say how to go on, where there is more."""
    if page.more:
        tell(f"There are more: --after {last}")


def _run(command: Command, options: argparse.Namespace, opening: Callable[[Settings], Any]) -> int:
    from gateway.errors import GatewayError, InvalidRequest  # noqa: PLC0415
    from gateway.settings import SettingsError  # noqa: PLC0415
    from gateway.storage.database import StorageError  # noqa: PLC0415

    settings = settings_or_faults()
    if settings is None:
        return 2
    try:
        return printing(lambda: command(opening(settings), options))
    except InvalidRequest as error:
        tell(f"gateway: {error.message}")
        return 2
    except GatewayError as error:
        tell(f"gateway: {error.message}")
        return 1
    except (StorageError, SettingsError) as error:
        tell(f"gateway: {error}")
        return 1


def directory(settings: Settings) -> Directory:
    """The directory of the configuration, whose database is made where no gateway has started yet."""
    from gateway import assembly  # noqa: PLC0415

    make_database(settings)
    return assembly.directory(settings)


def make_database(settings: Settings) -> None:
    """Make the database where no gateway has started yet.

    Raises:
        SettingsError: it cannot be used; says why and what to do.
    """
    from gateway import assembly  # noqa: PLC0415

    if not settings.database.exists():
        assembly.migrate(settings)
