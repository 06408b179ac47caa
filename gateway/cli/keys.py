"""`gateway keys`: make, show, change, rotate and delete virtual keys."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import end, names, span_s
from gateway.cli.managing import Group, add_paging, by, print_json, tell, tell_of_more
from gateway.cli.screen import columns, visible, when

if TYPE_CHECKING:
    from gateway.cli.managing import Commands
    from gateway.core.keys import Key
    from gateway.storage.directory import Directory
    from gateway.storage.keys import Issued, KeyChanges

#: Options that hold lists of rights, by the right.
_RIGHTS = {
    "scopes": ("--scopes", "call, metrics and admin"),
    "models": ("--models", "models that it may call; * stands for any text"),
    "endpoints": ("--endpoints", "operations that it may ask for, such as chat"),
    "parents": ("--trace-parents", "where its traces may hang, such as project_name:shop"),
}
_SPAN = "90s, 24h or 7d"
_END = f"{_SPAN} from now, a time like 2027-01-31T12:00, or never"


def add(commands: Commands) -> None:
    """Add the command `keys`, which has some of its own."""
    group = Group(commands, "keys", "make, list, change, rotate and delete virtual keys")

    one = group.add("create", "make a key and print it, once", _create)
    one.add_argument("name", help="what it is called")
    one.add_argument("--project", metavar="ID", help="whose it is")
    one.add_argument("--user", metavar="ID", help="whose it is")
    one.add_argument("--parent", metavar="ID", help="the key that it hangs from")
    _add_fields(one)

    one = group.add("list", "the keys, newest first", _list)
    one.add_argument("--project", metavar="ID", help="only of this project")
    one.add_argument("--user", metavar="ID", help="only of this user")
    one.add_argument("--parent", metavar="ID", help="only those that hang from this key")
    one.add_argument("--deleted", action="store_true", help="also those that are deleted")
    add_paging(one)

    _add_id(group.add("show", "all that is known of a key", _show))

    one = group.add("change", "change what is named; all else stays", _change)
    _add_id(one)
    one.add_argument("--name", default=argparse.SUPPRESS, help="what it is called")
    _add_fields(one)

    one = group.add("rotate", "give a key a new secret and print it, once", _rotate)
    _add_id(one)
    one.add_argument("--overlap", type=span_s, metavar="SPAN", help=f"how long the old one is good: {_SPAN} (24h)")

    for name, help in (("disable", "stop a key"), ("enable", "resume a key that was disabled")):
        _add_id(group.add(name, help, _switch(disabled=name == "disable")))
    _add_id(group.add("delete", "delete a key for good", _delete))


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of the key: the 12 characters behind sk-gw-")


def _add_fields(parser: argparse.ArgumentParser) -> None:
    for right, (option, help) in _RIGHTS.items():
        parser.add_argument(
            option, dest=right, type=names, default=argparse.SUPPRESS, metavar="A,B", help=f"{help}; '' for none"
        )
    parser.add_argument("--tags", type=names, default=argparse.SUPPRESS, metavar="A,B", help="of each of its traces")
    parser.add_argument("--expires", type=end, default=argparse.SUPPRESS, metavar="TIME", help=_END)


def _rights(options: argparse.Namespace) -> dict[str, Any]:
    return {right: getattr(options, right) for right in _RIGHTS if hasattr(options, right)}


def _create(directory: Directory, options: argparse.Namespace) -> int:
    from gateway.core.rights import read_rights  # noqa: PLC0415  # its tables take a while to build
    from gateway.storage.keys import NewKey  # noqa: PLC0415

    wanted = NewKey(
        name=options.name,
        rights=read_rights(_rights(options)),
        project=options.project,
        user=options.user,
        parent=options.parent,
        tags=getattr(options, "tags", ()),
        expires_s=getattr(options, "expires", None),
    )
    made = directory.keys.create(wanted, by())
    _print_issued(made, options, f"Key {made.key.id} is made. It is told this once:")
    return 0


def _rotate(directory: Directory, options: argparse.Namespace) -> int:
    from gateway.storage.keys import OVERLAP_S  # noqa: PLC0415

    overlap_s = OVERLAP_S if options.overlap is None else options.overlap
    turned = directory.keys.rotate(options.id, by(), overlap_s)
    until = (
        f" The old one is good until {when(time.time() + overlap_s)}." if overlap_s else " The old one is of no use."
    )
    _print_issued(turned, options, f"Key {turned.key.id} has a new secret, told this once.{until}")
    return 0


def _print_issued(one: Issued, options: argparse.Namespace, said: str) -> None:
    """Print the key alone, so that a script can take it; what goes with it is for people."""
    from gateway.storage.documents import issued  # noqa: PLC0415

    if options.json:
        print_json(issued(one, time.time()))
        return
    tell(said)
    if one.secret is not None:
        print(one.secret.reveal())


def _list(directory: Directory, options: argparse.Namespace) -> int:
    page = directory.keys.page(
        project=options.project,
        user=options.user,
        parent=options.parent,
        deleted=options.deleted,
        after=options.after,
        limit=options.limit,
    )
    if options.json:
        for key in page.items:
            _print(key, options)
    elif page.items:
        header = ("id", "name", "state", "scopes", "models", "project", "user", "expires", "used")
        columns(header, [_cells(key) for key in page.items])
    else:
        tell("There are none.")
    if page.items:
        tell_of_more(page, page.items[-1].id)
    return 0


def _cells(key: Key) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        key.state(time.time()),
        ",".join(sorted(key.rights.scopes)) or "-",
        ",".join(key.rights.models) or "-",
        key.project_name or "-",
        key.user_name or "-",
        when(key.expires_s),
        when(key.used_s),
    )


def _show(directory: Directory, options: argparse.Namespace) -> int:
    _print(directory.keys.show(options.id), options)
    return 0


def _change(directory: Directory, options: argparse.Namespace) -> int:
    changes: KeyChanges = {}
    if hasattr(options, "name"):
        changes["name"] = options.name
    if rights := _rights(options):
        changes["rights"] = rights
    if hasattr(options, "tags"):
        changes["tags"] = options.tags
    if hasattr(options, "expires"):
        changes["expires_s"] = options.expires
    if not changes:
        tell("gateway: name what is to change; --help lists what can")
        return 2
    _print(directory.keys.change(options.id, by(), changes), options)
    return 0


def _switch(*, disabled: bool) -> Any:
    def command(directory: Directory, options: argparse.Namespace) -> int:
        _print(directory.keys.change(options.id, by(), {"disabled": disabled}), options)
        return 0

    return command


def _delete(directory: Directory, options: argparse.Namespace) -> int:
    directory.keys.delete(options.id, by())
    _print(directory.keys.show(options.id), options)
    return 0


def _print(key: Key, options: argparse.Namespace) -> None:
    from gateway.storage.documents import key_document  # noqa: PLC0415

    if options.json:
        print_json(key_document(key, time.time()))
        return
    rights = key.rights.document()
    ends = [when(ends_s) if ends_s is not None else "without end" for ends_s in key.ends_s]
    told = {
        "id": key.id,
        "name": key.name,
        "state": key.state(time.time()),
        **{right: ", ".join(rights[right]) or "none" for right in _RIGHTS},
        "project": _owner(key.project, key.project_name),
        "user": _owner(key.user, key.user_name),
        "parent": key.parent or "-",
        "tags": ", ".join(key.tags) or "-",
        "made": f"{when(key.made_s)} by {key.made_by}",
        "expires": when(key.expires_s),
        "used": when(key.used_s),
        "secrets": "; ".join(ends) or "none",
    }
    for name, value in told.items():
        print(f"{name:<10} {visible(value)}")


def _owner(id: str | None, name: str | None) -> str:
    return f"{name} ({id})" if id is not None else "-"
