"""`gateway cache`: how much the cache keeps, and to have it forget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.cli.arguments import without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import visible

if TYPE_CHECKING:
    from gateway.storage.answers import Answers

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: Nobody waits for an answer meanwhile.
_PATIENCE_S = 5.0

_SHOW_HELP = """\
Say how many answers the cache keeps in the store that all workers share, and how large they are there.

Exit status: 0; 1 when the store cannot be used, 2 when the settings cannot be."""
_CLEAR_HELP = """\
Forget kept answers, all or those of one tenant. A gateway that runs may give them out for a second yet.

Exit status: 0; 1 when the store cannot be used, 2 when the settings cannot be."""


def add(commands: Commands) -> None:
    """Add the command `cache`."""
    parser = commands.add_parser("cache", help="what the cache keeps: show, clear")
    inner = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))
    raw = argparse.RawDescriptionHelpFormatter
    for name, help, described, verb in (
        ("show", "how much is kept", _SHOW_HELP, _show),
        ("clear", "forget what is kept", _CLEAR_HELP, _clear),
    ):
        one = inner.add_parser(name, help=help, description=described, formatter_class=raw)
        one.add_argument(
            "--tenant",
            help="of one tenant alone: the id of a project or a user, or of a caller without (docs/caching.md)",
        )
        one.set_defaults(run=lambda options, verb=verb: _run(verb, options.tenant))


def _show(answers: Answers, tenant: str | None) -> str:
    found = answers.holdings(tenant)
    return f"answers: {found.answers}\nbytes: {found.size_bytes}"


def _clear(answers: Answers, tenant: str | None) -> str:
    return f"answers forgotten: {answers.clear(tenant)}"


def _run(verb: Callable[[Answers, str | None], str], tenant: str | None) -> int:
    settings = settings_or_faults()
    if settings is None:
        return 2
    from gateway import assembly  # noqa: PLC0415  # SQLAlchemy takes a moment
    from gateway.settings import SettingsError  # noqa: PLC0415
    from gateway.storage.faults import StorageError  # noqa: PLC0415

    try:
        if not settings.database.exists():
            assembly.migrate(settings)
        answers = assembly.kept_answers(settings, _PATIENCE_S)
        if answers is None:
            print("gateway: GATEWAY_CACHE_STORE is memory: each worker has its own, until it ends", file=sys.stderr)
            return 1
        try:
            print(verb(answers, tenant))
        finally:
            answers.close()
    except (StorageError, SettingsError) as error:
        print(visible(f"gateway: {error}"), file=sys.stderr)
        return 1
    return 0
