"""`gateway audit`: who changed what of keys, projects, users, limits and budgets."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from gateway.cli import managing
from gateway.cli.arguments import one_or_more
from gateway.cli.managing import add_paging, print_json, tell, tell_of_more
from gateway.cli.screen import columns, when

if TYPE_CHECKING:
    from gateway.cli.managing import Commands
    from gateway.storage.directory import Directory


def add(commands: Commands) -> None:
    """Add the command `audit`."""
    parser = managing.add(commands, "audit", "who changed what that is managed here, newest first", _audit)
    parser.add_argument("--kind", choices=("key", "project", "user", "limit", "budget"), help="only of this kind")
    parser.add_argument("--target", metavar="ID", help="only of what has this id")
    add_paging(parser, one_or_more)


def _audit(directory: Directory, options: argparse.Namespace) -> int:
    from gateway.storage.documents import audit_document  # noqa: PLC0415  # SQLAlchemy takes a moment

    page = directory.audit.page(kind=options.kind, target=options.target, before=options.after, limit=options.limit)
    if options.json:
        for line in page.items:
            print_json(audit_document(line))
    elif page.items:
        rows = [
            (when(line.at_s), line.actor, line.action, line.kind, line.target, json.dumps(dict(line.details)))
            for line in page.items
        ]
        columns(("time", "who", "did", "what", "id", "details"), rows)
    else:
        tell("There is nothing.")
    if page.items:
        tell_of_more(page, str(page.items[-1].seq))
    return 0
