"""`gateway projects` and `gateway users`: whom keys belong to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.cli.managing import Group, add_paging, by, print_json, tell, tell_of_more
from gateway.cli.screen import columns, when

if TYPE_CHECKING:
    from gateway.cli.managing import Commands
    from gateway.storage.accounts import Account, Accounts
    from gateway.storage.directory import Directory


def add_projects(commands: Commands) -> None:
    """Add the command `projects`."""
    _Accounts(commands, "project", lambda directory: directory.projects)


def add_users(commands: Commands) -> None:
    """Add the command `users`."""
    _Accounts(commands, "user", lambda directory: directory.users)


class _Accounts:
    """The commands for accounts of one kind."""

    def __init__(self, commands: Commands, kind: str, of: Callable[[Directory], Accounts]) -> None:
        self._kind = kind
        self._of = of
        group = Group(commands, f"{kind}s", f"make, list, rename and stop {kind}s, whom keys belong to")
        group.add("create", f"make a {kind}", self._create).add_argument("name", help="no other one has it")
        add_paging(group.add("list", f"the {kind}s, newest first", self._list))
        self._add_id(group.add("show", f"one {kind}", self._show))
        one = group.add("change", f"rename a {kind}", self._change)
        self._add_id(one)
        one.add_argument("--name", required=True, help="no other one has it")
        self._add_id(group.add("disable", f"stop all keys of a {kind}", self._disable))
        self._add_id(group.add("enable", f"resume the keys of a {kind}", self._enable))

    def _add_id(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id", help=f"of the {self._kind}: {self._kind[:4]}_…")

    def _create(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print([self._of(directory).create(options.name, by())], options)

    def _list(self, directory: Directory, options: argparse.Namespace) -> int:
        page = self._of(directory).page(after=options.after, limit=options.limit)
        if not page.items:
            tell("There are none.")
            return 0
        self._print(page.items, options)
        tell_of_more(page, page.items[-1].id)
        return 0

    def _show(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print([self._of(directory).show(options.id)], options)

    def _change(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print([self._of(directory).change(options.id, by(), name=options.name)], options)

    def _disable(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print([self._of(directory).change(options.id, by(), disabled=True)], options)

    def _enable(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print([self._of(directory).change(options.id, by(), disabled=False)], options)

    def _print(self, accounts: Sequence[Account], options: argparse.Namespace) -> int:
        from gateway.storage.documents import account_document  # noqa: PLC0415  # SQLAlchemy takes a moment

        if options.json:
            for account in accounts:
                print_json(account_document(self._kind, account))
            return 0
        rows = [(one.id, one.name, "disabled" if one.disabled else "active", when(one.made_s)) for one in accounts]
        columns(("id", "name", "state", "made"), rows)
        return 0
