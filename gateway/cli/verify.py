"""`gateway traces verify`: is there a trace of every call that was served?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import MOMENTS, moment
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import visible
from gateway.cli.spool import counted

if TYPE_CHECKING:
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

JSON = dict[str, Any]

_HELP = """\
Without --log, look at the spool alone: each call that began has its row there, is open in a process that lives, or
will be told as interrupted; frames that are damaged and rows that were dropped are named.

With --log, compare the gateway's log (JSON lines) with what was kept: each request that became a call is among the
delivered ones (known for 7 days), in the spool, in quarantine, in the local database, or told in the log itself.

Exit status: 0 when nothing is missing, 1 when something is, 2 when the settings, the log or the spool cannot be
read."""


def add(subcommands: Commands) -> None:
    """Add `verify` to `gateway traces`."""
    parser = subcommands.add_parser(
        "verify",
        help="name the calls that have no trace",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", metavar="FILE", help="the gateway's log, or - for standard input")
    parser.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help=f"of the log, only what is newer: {MOMENTS}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_verify)


def _epoch_s(text: str) -> float:
    """The time of a log line, which is UTC, as seconds since the epoch."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@dataclass
class Log:
    """What the log says.

    Attributes:
        served: requests that became calls, each with the time of its line.
        told: requests whose trace is a line of the log (where no Braintrust key is set).
        others: lines of the gateway that are no calls.
        untraced: calls whose callers wanted no trace.
        refused: calls that were refused since their trace could not be kept.
        is_json: whether a line was JSON, be it older than was asked for.
        not_json: lines that were skipped.
    """

    served: dict[str, float] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    others: int = 0
    untraced: int = 0
    refused: int = 0
    is_json: bool = False
    not_json: int = 0


def read_log(lines: Iterable[str], since_s: float = 0.0) -> Log:
    """Read a log, line by line."""
    log = Log()
    for text in lines:
        try:
            line = json.loads(text)
            at_s = _epoch_s(str(line["time"])) if isinstance(line, dict) and "time" in line else time.time()
        except (ValueError, RecursionError):
            log.not_json += bool(text.strip())
            continue
        if not isinstance(line, dict):
            log.not_json += 1
            continue
        log.is_json = True
        request = line.get("request_id")
        if at_s < since_s:
            continue
        if line.get("logger") == "gateway.trace" and isinstance(request, str):
            log.told.add(request)
        elif line.get("logger") != "gateway.access" or "model" not in line or not isinstance(request, str):
            log.others += 1
        elif line.get("trace") == "off":
            log.untraced += 1
        elif line.get("error") == "trace_backpressure":
            log.refused += 1
        else:
            log.served[request] = at_s
    return log


def in_database(path: Path, requests: set[str]) -> set[str]:
    """Return which of these the local database has; none where there is no such database."""
    from gateway.storage.database import Database, StorageError  # noqa: PLC0415  # SQLAlchemy takes a moment
    from gateway.tracing.search import Search  # noqa: PLC0415

    if not path.is_file() or not requests:
        return set()
    try:
        return Search(Database(path)).kept_of(requests)
    except StorageError as error:
        print(f"the traces that are kept here cannot be read: {error}", file=sys.stderr)
        return set()


def _verify(options: argparse.Namespace) -> int:
    settings = settings_or_faults()
    if settings is None:
        return 2
    log = None
    if options.log is not None:
        try:
            if options.log == "-":
                log = read_log(sys.stdin, options.since or 0.0)
            else:
                with Path(options.log).open(encoding="utf-8", errors="replace") as lines:
                    log = read_log(lines, options.since or 0.0)
        except OSError as error:
            print(f"{options.log} cannot be read: {error.strerror or error}", file=sys.stderr)
            return 2
        if log.not_json and not log.is_json:
            print(
                f"{options.log} has no line of JSON: the gateway has to write it with LOG_FORMAT=json", file=sys.stderr
            )
            return 2
    try:
        report = compare(settings, log)
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror or error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(map(visible, _told(report))))
    return int(not report["ok"])


def compare(settings: Settings, log: Log | None) -> JSON:
    """Compare what was served with what was kept. Reads the log's side first: rows only ever move on from there."""
    from gateway.assembly import spool_folder  # noqa: PLC0415
    from gateway.tracing.backlog import LEDGER, read_calls  # noqa: PLC0415
    from gateway.tracing.keeping import KEEP_RECEIPTS_S, put_aside, receipts  # noqa: PLC0415

    top = spool_folder(settings)
    folders = sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []
    folders = [folder for folder in folders if folder.name != LEDGER]  # a row of the ledger is no trace
    spool = read_calls(folders)
    aside = {str(line.get("request")) for folder in folders for _path, line in put_aside(folder) if line.get("request")}
    report: JSON = {
        "spool": {name: sorted(value) if isinstance(value, set) else value for name, value in asdict(spool).items()},
        "quarantine": sorted(aside),
    }
    counts = {folder.name: _counted_by_sender(folder) for folder in folders}
    report["spool"]["counted"] = {name: count for name, count in counts.items() if count}
    lost = [*spool.dropped, *spool.damaged] or any({"dropped", "damaged"} & set(one) for one in counts.values())
    missing: set[str] = set()
    if log is not None:
        delivered = set().union(*(receipts(folder) for folder in folders))
        told = spool.interrupted | spool.dropped  # the sender writes a row that says what became of them
        left = set(log.served)
        found = {}
        for name, place in (
            ("delivered", delivered),
            ("waiting", spool.roots),
            ("open", spool.open),
            ("interrupted or dropped, to be told", told),
            ("quarantine", aside),
            ("log", log.told),
            ("database", in_database(settings.database, left)),
        ):
            found[name] = len(left & place)
            left -= place
        old = {one for one in left if log.served[one] < time.time() - KEEP_RECEIPTS_S}
        missing = left - old
        report["log"] = {
            "calls": len(log.served),
            "found": found,
            "too_old_to_tell": len(old),
            "untraced_by_the_caller": log.untraced,
            "refused_without_room": log.refused,
            "other_lines": log.others,
            "not_json": log.not_json,
        }
    report["missing"] = sorted(missing, key=lambda one: (log.served[one], one)) if log is not None else []
    report["ok"] = not missing and not lost
    return report


def _counted_by_sender(folder: Path) -> JSON:
    from gateway.tracing.keeping import read_state  # noqa: PLC0415

    state = read_state(folder)
    return {name: state[name] for name in ("dropped", "quarantined", "damaged", "interrupted") if state.get(name)}


def _told(report: JSON) -> list[str]:
    spool, lines = report["spool"], []
    if (log := report.get("log")) is not None:
        found = ", ".join(f"{count} {name}" for name, count in log["found"].items() if count)
        lines.append(f"log: {counted(log['calls'], 'call')}: {found or 'none found'}")
        for name, words in (
            ("too_old_to_tell", "older than 7 days and not found: what was delivered is not remembered for longer"),
            ("untraced_by_the_caller", "whose callers wanted no trace"),
            ("refused_without_room", "refused, since no trace could be kept"),
            ("other_lines", "other lines"),
            ("not_json", "lines that are not the gateway's JSON, skipped"),
        ):
            if log[name]:
                lines.append(f"log: {log[name]} {words}")
    lines.append(
        f"spool: {counted(len(spool['roots']), 'trace')} there, {counted(len(spool['open']), 'call')} under way, "
        f"{len(spool['interrupted'])} interrupted, {counted(len(report['quarantine']), 'trace')} in quarantine"
    )
    lines += [f"interrupted, told at the next delivery: {request}" for request in spool["interrupted"]]
    lines += [f"in quarantine: {request}" for request in report["quarantine"]]
    lines += [f"DROPPED for want of room: {request}" for request in spool["dropped"]]
    lines += [f"DAMAGED frame: {place}" for place in spool["damaged"]]
    for folder, counts in spool["counted"].items():
        lines.append(f"{folder}: so far " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    lines += [f"MISSING {request}" for request in report["missing"]]
    if report["missing"]:
        return [*lines, f"{counted(len(report['missing']), 'call')} without a trace"]
    if not report["ok"]:
        return [*lines, "rows were dropped or damaged: their traces are not whole"]
    if log is None:
        return [*lines, "nothing is missing in the spool; --log FILE looks for the trace of every call that was served"]
    return [*lines, "nothing is missing"]
