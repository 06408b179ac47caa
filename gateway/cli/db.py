"""`gateway db`: make the tables of this release, and move what is kept to another database."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.arguments import without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import visible

if TYPE_CHECKING:
    from gateway.secret import Secret
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_SQLITE = "sqlite:///"

_UPGRADE_HELP = """\
Make the tables of this release, or bring older ones up to date: in the data folder's file, and in DATABASE_URL where
that is set. A start of the gateway does so too; this is for whoever wants it done before.

Exit status: 0 when all are up to date, 1 when not, 2 when the settings cannot be used."""
_COPY_HELP = """\
Copy what the gateway keeps to an empty database, all of it or nothing: whose the stored responses are, the answers
kept here, and what limits and budgets have counted. Local traces stay in their file. Stop the gateway first: what it
writes meanwhile is not copied.

An address is sqlite:///FILE (sqlite:////... for a path from the root) or postgresql+psycopg://user:password@host/name.
What others may see of a command line they see of its passwords: leave --to out, and set DATABASE_URL.

Exit status: 0 when all is copied and counted, 1 when nothing is, 2 when the settings or an address cannot be used."""


def add(commands: Commands) -> None:
    """Add the command `db`."""
    parser = commands.add_parser("db", help="the databases: upgrade, copy")
    inner = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))
    raw = argparse.RawDescriptionHelpFormatter
    one = inner.add_parser(
        "upgrade", help="bring the tables up to date", description=_UPGRADE_HELP, formatter_class=raw
    )
    one.set_defaults(run=lambda _options: _upgrade())
    one = inner.add_parser("copy", help="copy all to an empty database", description=_COPY_HELP, formatter_class=raw)
    one.add_argument("--from", dest="source", metavar="ADDRESS", help="without it: the file of the data folder")
    one.add_argument("--to", dest="target", metavar="ADDRESS", help="without it: DATABASE_URL")
    one.set_defaults(run=_copy)


def _upgrade() -> int:
    settings = settings_or_faults()
    if settings is None:
        return 2
    from gateway.settings import told  # noqa: PLC0415  # its table takes a while to build
    from gateway.storage.faults import StorageError  # noqa: PLC0415
    from gateway.storage.migrate import newest, upgrade  # noqa: PLC0415  # SQLAlchemy takes a moment

    try:
        upgrade(settings.database)
        print(f"{settings.database} has the tables of this release ({newest()})")
        if (url := settings.database_url) is not None:
            upgrade(url)
            print(f"{told(url)} has the tables of this release ({newest()})")
    except StorageError as error:
        print(visible(f"gateway: {error}"), file=sys.stderr)
        return 1
    return 0


def _copy(options: argparse.Namespace) -> int:
    settings = settings_or_faults()
    if settings is None:
        return 2
    try:
        source = settings.database if options.source is None else _place(options.source)
        target = _target(settings) if options.target is None else _place(options.target)
    except ValueError as error:
        print(visible(f"gateway: {error}"), file=sys.stderr)
        return 2
    from gateway.storage.copying import copy  # noqa: PLC0415  # SQLAlchemy takes a moment
    from gateway.storage.faults import StorageError  # noqa: PLC0415

    try:
        copied = copy(source, target)
    except StorageError as error:
        print(visible(f"gateway: {error}; nothing was copied"), file=sys.stderr)
        return 1
    for table, rows in copied.items():
        print(f"{table}: {rows} rows")
    return 0


def _target(settings: Settings) -> Secret:
    if settings.database_url is None:
        raise ValueError("name the database to copy to: --to, or DATABASE_URL")
    return settings.database_url


def _place(address: str) -> Path | Secret:
    """Read an address.

    Raises:
        ValueError: it is none; the message does not repeat it, for it may hold a password.
    """
    from gateway.settings import postgres_address  # noqa: PLC0415

    if address.startswith(_SQLITE) and len(address) > len(_SQLITE):
        return Path(address.removeprefix(_SQLITE))
    try:
        return postgres_address(address)
    except ValueError as fault:
        raise ValueError(f"an address is {_SQLITE}FILE, or it {fault}") from None
