"""`gateway traces`: read the traces that are kept here, while the gateway runs and when it does not."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gateway.cli import verify
from gateway.cli.arguments import MOMENTS, count, moment, one_or_more, usd, without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import printing, visible

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.tracing.search import Filters, Search, Trace

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
The traces of the data folder: kept while no BRAINTRUST_API_KEY is set, or with GATEWAY_LOCAL_TRACES=on.

Exit status: 0; 1 when no traces are kept here, they cannot be read, or there is none of that id; 2 when the arguments
or the settings cannot be used. `verify` has its own."""

_NONE_YET = "No traces yet: send a request first."
_POLL_S = 0.5


class _Nothing(Exception):
    """The command has nothing to work on; `str()` says why, and what to do."""


def add(commands: Commands) -> None:
    """Add the command `traces`, which has some of its own."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "traces",
        help="list, show, follow and export the traces that are kept here",
        description=_HELP,
        formatter_class=raw,
    )
    own = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return own.add_parser(name, help=help, description=f"{name}: {help}.\n\n{_HELP}", formatter_class=raw)

    listed = command("list", "the newest traces, one a line")
    _add_filters(listed)
    listed.add_argument("--limit", type=one_or_more, default=50, metavar="N", help="how many at most (50)")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    listed.set_defaults(run=lambda options: _run(_list, options))

    shown = command("show", "all of one trace: times, messages, tokens, costs")
    shown.add_argument("id", nargs="?", help="request id, row id or trace id, or how it begins; the newest without it")
    shown.add_argument("--json", action="store_true", help="its rows, one JSON object a line")
    shown.set_defaults(run=lambda options: _run(_show, options))

    tail = command("tail", "print traces as their calls end, until Ctrl-C")
    tail.add_argument("-n", dest="last", type=count, default=10, metavar="N", help="begin with the last N (10)")
    tail.set_defaults(run=lambda options: _run(_tail, options))

    export = command("export", "rows as JSON lines, as Braintrust's import takes them")
    _add_filters(export)
    export.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write there instead of printing")
    export.set_defaults(run=lambda options: _run(_export, options))

    verify.add(own)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=moment, metavar="TIME", help=f"began then or later: {MOMENTS}")
    parser.add_argument("--until", type=moment, metavar="TIME", help="began before then")
    parser.add_argument("--model", metavar="NAME", help="asked for or served; * stands for any characters")
    parser.add_argument("--caller", metavar="ID", help="the caller's id, tok_…")
    parser.add_argument("--status", type=_status, metavar="S", help="404, 4xx, error, open or interrupted")
    parser.add_argument("--min-cost", type=usd, metavar="USD", help="cost that much or more")
    parser.add_argument("--text", help="stands in input, output or error")
    parser.add_argument("--tag", help="has this tag")


def _status(text: str) -> str:
    if not re.fullmatch(r"[0-9]{3}|[0-9]xx|error|open|interrupted", text):
        raise argparse.ArgumentTypeError("one of 404, 4xx, error, open, interrupted is needed")
    return text


def _run(command: Callable[[Search, argparse.Namespace], int], options: argparse.Namespace) -> int:
    from gateway.storage.database import StorageError  # noqa: PLC0415  # SQLAlchemy takes a moment

    settings = settings_or_faults()
    if settings is None:
        return 2
    try:
        return printing(lambda: command(_open(settings), options))
    except (_Nothing, StorageError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1


def _open(settings: Settings) -> Search:
    from gateway.storage.database import Database  # noqa: PLC0415
    from gateway.tracing.search import Search  # noqa: PLC0415

    if not settings.traces_kept_here:
        if settings.braintrust_api_key is None:
            raise _Nothing("no traces are kept here: GATEWAY_LOCAL_TRACES=off leaves them to the log alone.")
        where = f"they go to Braintrust, project {settings.braintrust_project}"
        raise _Nothing(f"no traces are kept here; {where}. GATEWAY_LOCAL_TRACES=on keeps them here too.")
    path = settings.database
    if not path.exists():
        raise _Nothing(
            f"no traces are kept here yet: there is no {path}. A start of the gateway makes it; where one runs "
            "already, do this in the folder that it was started in, or with its GATEWAY_DATA_DIR."
        )
    return Search(Database(path))


def _filters(options: argparse.Namespace) -> Filters:
    from gateway.tracing.search import Filters  # noqa: PLC0415

    return Filters(
        since_s=options.since,
        until_s=options.until,
        model=options.model,
        caller=options.caller,
        status=options.status,
        min_cost_usd=options.min_cost,
        text=options.text,
        tag=options.tag,
    )


def _list(search: Search, options: argparse.Namespace) -> int:
    from gateway.cli import paint  # noqa: PLC0415  # rich takes a moment

    found = search.list(_filters(options), limit=options.limit)
    if options.json:
        for trace in found:
            print(paint.json_line(paint.facts(trace)))
    elif found:
        paint.table(found)
    else:
        print(_NONE_YET if search.count() == 0 else "No trace is like that.")
    return 0


def _show(search: Search, options: argparse.Namespace) -> int:
    from gateway.cli import paint  # noqa: PLC0415

    trace = _chosen(search, options.id)
    if trace is None:
        print(_NONE_YET)
        return 0
    rows = search.rows(trace)
    if not rows or rows[-1].get("id") != trace.id:
        raise _Nothing(f"the rows of {visible(trace.request_id)} have just been deleted")
    if options.json:
        for row in rows:
            print(paint.json_line(row))
    else:
        paint.trace(trace, rows)
    return 0


def _chosen(search: Search, asked: str | None) -> Trace | None:
    from gateway.tracing.search import SHORTEST_PREFIX, Ambiguous, NoSuchTrace  # noqa: PLC0415

    if asked is None:
        return next(iter(search.list(limit=1)), None)
    try:
        return search.get(asked)
    except NoSuchTrace:
        hint = f" ({SHORTEST_PREFIX} characters at least)" if len(asked) < SHORTEST_PREFIX else ""
        raise _Nothing(f"no trace has or begins with the id {visible(asked)}{hint}") from None
    except Ambiguous as error:
        raise _Nothing(visible(str(error))) from None


def _tail(search: Search, options: argparse.Namespace) -> int:
    from gateway.cli import paint  # noqa: PLC0415

    seen = search.latest()
    first = (
        [trace for trace in search.list(limit=max(options.last, 1)) if trace.state != "open"] if options.last else []
    )
    printed = {trace.id for trace in first}
    paint.lines(first[::-1], header=True)
    while True:
        found = search.since(seen)
        new = [trace for trace in found if trace.state != "open" and trace.id not in printed]
        paint.lines(new, header=False)
        if found:
            seen = found[-1].seq
            printed.clear()  # a trace that comes again has changed
        else:
            time.sleep(_POLL_S)


def _export(search: Search, options: argparse.Namespace) -> int:
    filters = _filters(options)
    if options.output is None:
        _write(search, filters, sys.stdout)
        return 0
    try:
        # Prompts and answers: for this user's eyes, like the database.
        descriptor = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            rows = _write(search, filters, file)
    except OSError as error:
        raise _Nothing(f"{options.output}: {error.strerror}") from None
    print(f"{rows} rows in {options.output}", file=sys.stderr)
    return 0


def _write(search: Search, filters: Filters, file: TextIO) -> int:
    from gateway.cli import paint  # noqa: PLC0415

    rows = 0
    for row in search.export(filters):
        file.write(paint.json_line({name: value for name, value in row.items() if name not in _NOT_IMPORTED}) + "\n")
        rows += 1
    return rows


#: Where a row is put and how, which the import decides.
_NOT_IMPORTED = frozenset(
    {"_is_merge", "_merge_paths", "project_id", "project_name", "experiment_id", "log_id", "org_id", "org_name"}
)
