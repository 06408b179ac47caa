"""`gateway`: run it, look after it, read its traces. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.cli import (
    accounts,
    audit,
    cache,
    check,
    db,
    doctor,
    keys,
    prices,
    routes,
    rules,
    serve,
    spool,
    traces,
    usage,
)
from gateway.cli.arguments import without_command

#: Each adds its command to the parser, in the order in which the help lists them.
_COMMANDS = (
    *(serve.add, check.add, routes.add, doctor.add, traces.add, spool.add, usage.add, prices.add),
    *(keys.add, accounts.add_projects, accounts.add_users, rules.add_limits, rules.add_budgets, audit.add),
    *(cache.add, db.add),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="gateway", description="An LLM gateway that traces every call.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="command")
    for add in _COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    if options.version:
        print(f"gateway {_version()}")
        return 0
    if not hasattr(options, "run"):
        return without_command(parser)
    status: int = options.run(options)
    return status


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415  # slow, and only this needs it

    return metadata.version("llm-gateway")
