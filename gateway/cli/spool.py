"""`gateway spool`: what waits to be delivered, deliver it without a gateway, and what was refused for good."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import timeout_s, without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import visible

if TYPE_CHECKING:
    from gateway.assembly import Delivery
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

JSON = dict[str, Any]

_STATUS_HELP = """\
What waits in each folder under <data folder>/spool, and how its sender fares.

Exit status: 0 when all is well; 1 when an operator is needed: the key is refused, nothing was delivered for 10 s,
rows wait and nothing delivers them, calls were cut off with their process and nothing tells of them, a folder is more
than 80 % full or cannot be read, rows lie in quarantine, or rows had to be dropped or were damaged (this counts since
the folder was made; remove sender.json while no gateway runs to count anew); 2 when the settings cannot be used."""
_DRAIN_HELP = """\
Deliver what waits, with no gateway running. Where one runs it delivers by itself, and this waits for it.

Exit status: 0 when nothing waits any more, 1 when something stays, 2 when the settings cannot be used."""
_QUARANTINE_HELP = """\
List the rows that the destination refused for good. --again puts them back into the spool, so that they are delivered
once more; a row may then arrive twice, and replaces itself.

Exit status: 0; 1 when some could not be put back; 2 when the settings cannot be used."""

_POLL_S = 0.1
#: What a folder of this configuration is for, by the sink's name.
_PURPOSES = {
    "braintrust": "Braintrust, with this configuration's key",
    "local": "the traces that are kept here (gateway traces)",
    "ledger": "what each call used and cost (gateway usage)",
}
#: For a sender that has just opened a file of the quarantine to write its row and close it.
_WRITER_ENDS_S = 0.2


def add(commands: Commands) -> None:
    """Add the command `spool`."""
    parser = commands.add_parser("spool", help="what waits to be delivered: status, drain, quarantine")
    inner = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))
    raw = argparse.RawDescriptionHelpFormatter
    one = inner.add_parser("status", help="say what waits", description=_STATUS_HELP, formatter_class=raw)
    one.add_argument("--json", action="store_true", help="print one JSON object")
    one.set_defaults(run=lambda options: _run(_status, options))
    one = inner.add_parser("drain", help="deliver what waits", description=_DRAIN_HELP, formatter_class=raw)
    one.add_argument("--timeout", type=timeout_s, default=60.0, metavar="SECONDS", help="for all of it (60)")
    one.set_defaults(run=lambda options: _run(_drain, options))
    one = inner.add_parser("quarantine", help="rows put aside", description=_QUARANTINE_HELP, formatter_class=raw)
    one.add_argument("--again", action="store_true", help="put them back into the spool")
    one.add_argument("--json", action="store_true", help="print one JSON object")
    one.set_defaults(run=lambda options: _run(_quarantine, options))


def _run(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return command(options)
    except OSError as error:  # another user's folder, say
        print(f"{error.filename} cannot be read: {error.strerror or error}", file=sys.stderr)
        return 1


@dataclass
class Folder:
    """What is known of one folder of the spool.

    Attributes:
        current: this configuration delivers it.
        sender_pid: of the process that delivers it now, or None.
        open_calls: that are under way in a living process.
        untold_calls: whose process died, and whose traces do not say so yet.
        quarantine_rows: that lie there now; `quarantined` counts since the folder was made.
        needs: why an operator is needed, one sentence each.
    """

    folder: str
    purpose: str
    current: bool
    waiting_bytes: int = 0
    waiting_rows: int = 0
    oldest_s: float = 0.0
    used_bytes: int = 0
    cap_bytes: int = 0
    sender_runs: bool = False
    sender_pid: int | None = None
    sent: int = 0
    dropped: int = 0
    quarantined: int = 0
    damaged: int = 0
    interrupted: int = 0
    quarantine_rows: int = 0
    open_calls: int = 0
    untold_calls: int = 0
    trouble: str | None = None
    trouble_since_s: float | None = None
    needs: list[str] = field(default_factory=list)


def folders(settings: Settings) -> list[Folder]:
    """Look at each folder of the spool; this configuration's first, also one that is not made yet."""
    from gateway.assembly import deliveries, ledger_delivery, spool_folder  # noqa: PLC0415
    from gateway.settings import bytes_of  # noqa: PLC0415

    mine = {delivery.folder.name: delivery for delivery in (*deliveries(settings), ledger_delivery(settings))}
    top = spool_folder(settings)
    names = sorted(path.name for path in top.iterdir() if path.is_dir()) if top.is_dir() else []
    cap_bytes = bytes_of(settings.spool_mb)
    return [
        _look(name, top / name, mine.get(name), cap_bytes) for name in dict.fromkeys([*mine, *names]) if name[:1] != "."
    ]


def _look(name: str, folder: Path, delivery: Delivery | None, cap_bytes: int) -> Folder:
    from gateway.tracing import locks  # noqa: PLC0415
    from gateway.tracing.backlog import look, read_calls, waiting  # noqa: PLC0415
    from gateway.tracing.frames import Frame  # noqa: PLC0415
    from gateway.tracing.keeping import put_aside  # noqa: PLC0415

    found = Folder(str(folder), _purpose(name, delivery), delivery is not None, cap_bytes=cap_bytes)
    try:
        if not folder.exists():
            return found
        backlog = look(name, folder, cap_bytes)
        found.waiting_rows = sum(isinstance(one, Frame) and one.kind == "id" for _path, one in waiting(folder))
        found.quarantine_rows = sum(1 for _ in put_aside(folder))
        calls = read_calls([folder])
        found.open_calls, found.untold_calls = len(calls.open), len(calls.interrupted)
    except OSError as error:
        found.needs.append(f"it cannot be read: {error.strerror or error}")
        return found
    found.waiting_bytes, found.used_bytes, found.oldest_s = backlog.waiting_bytes, backlog.used_bytes, backlog.oldest_s
    found.sender_runs = locks.is_taken(folder / "sender.lock")
    state = backlog.sender
    found.sender_pid = state.get("pid") if found.sender_runs else None
    for count in ("sent", "dropped", "quarantined", "damaged", "interrupted"):
        setattr(found, count, state.get(count, 0))
    found.trouble, found.trouble_since_s = state.get("trouble"), state.get("since_s")
    found.needs += _needs(found, refused=bool(state.get("refused")), trouble=backlog.trouble)
    return found


def _needs(found: Folder, *, refused: bool, trouble: str | None) -> list[str]:
    needs = []
    if refused:
        needs.append("the destination refuses the gateway: mend the key, the organisation or the address")
    elif trouble:
        needs.append(trouble)
    if found.waiting_bytes and not found.sender_runs:
        if found.current:
            needs.append("rows wait and nothing delivers them: start the gateway, or run `gateway spool drain`")
        else:
            needs.append("rows wait for another configuration: start or drain with that one, or remove the folder")
    if found.untold_calls and found.current and not found.sender_runs:
        needs.append(
            f"cut off with their process, and no trace says so yet: {counted(found.untold_calls, 'call')}; start the "
            "gateway, or run `gateway spool drain`"
        )
    if found.quarantine_rows:
        needs.append(f"{counted(found.quarantine_rows, 'row')} in quarantine: see `gateway spool quarantine`")
    if found.dropped:
        needs.append(f"lost: {counted(found.dropped, 'row')}, for want of room in the spool or in quarantine")
    if found.damaged:
        needs.append(f"skipped: {counted(found.damaged, 'damaged frame')}; look at the disk")
    return needs


def _purpose(name: str, delivery: Delivery | None) -> str:
    if delivery is not None:
        return _PURPOSES.get(delivery.sink, f"this configuration's {delivery.sink}")
    if name.startswith("braintrust-"):
        return "another key's or organisation's: start with that key to have it delivered"
    if name == "local":
        return "the traces that are kept here, which this configuration does not do"
    return f"{name}, which this configuration does not deliver to"


def _status(options: argparse.Namespace) -> int:
    settings = settings_or_faults()
    if settings is None:
        return 2
    found = folders(settings)
    needed = any(one.needs for one in found)
    if options.json:
        print(json.dumps({"ok": not needed, "folders": [asdict(one) for one in found]}, indent=2))
        return int(needed)
    if all(Path(one.folder).name == "ledger" for one in found):
        print("No traces are spooled: they go to the log alone (GATEWAY_LOCAL_TRACES=off). None wait from before.")
    for one in found:
        print("\n".join(map(visible, _told(one))))
    return int(needed)


def _told(one: Folder) -> list[str]:
    sender = "none runs"
    if one.sender_runs:
        sender = f"process {one.sender_pid}, alive" if one.sender_pid else "a living process"
    waits = f"{counted(one.waiting_rows, 'row')}, {_size(one.waiting_bytes)}"
    if one.waiting_bytes:
        waits += f", the oldest {_span(one.oldest_s)} old"
    if one.open_calls:
        waits += f"; {counted(one.open_calls, 'call')} under way"
    counts = ("sent", "dropped", "quarantined", "damaged", "interrupted")
    lines = [
        one.folder,
        f"  for      {one.purpose}",
        f"  waiting  {waits}",
        f"  disk     {_size(one.used_bytes)} of {_size(one.cap_bytes)}",
        f"  sender   {sender}",
        f"  so far   {', '.join(f'{getattr(one, name)} {name}' for name in counts)}",
    ]
    if one.trouble:
        since = f" (for {_span(time.time() - one.trouble_since_s)})" if one.trouble_since_s else ""
        lines.append(f"  trouble  {one.trouble}{since}")
    return lines + [f"  NEEDS    {need}" for need in one.needs]


def counted(count: int, noun: str) -> str:
    """Say how many there are: 1 row, 2 rows."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def _span(seconds: float) -> str:
    for name, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


def _drain(options: argparse.Namespace) -> int:
    from gateway.assembly import deliveries, ledger_delivery  # noqa: PLC0415

    settings = settings_or_faults()
    if settings is None:
        return 2
    mine = deliveries(settings)
    end_s = time.monotonic() + options.timeout
    # first, since its database is near; one that does not answer leaves the traces their time
    _drain_one(ledger_delivery(settings), time.monotonic() + options.timeout / 2)
    for delivery in mine:
        _drain_one(delivery, end_s)
    if not mine:
        print("This configuration delivers no traces: BRAINTRUST_API_KEY is not set, and GATEWAY_LOCAL_TRACES is off.")
    stays = [one for one in folders(settings) if one.waiting_bytes]
    for one in stays:
        size = f"{counted(one.waiting_rows, 'row')} ({_size(one.waiting_bytes)})"
        why = f": {one.trouble}" if one.trouble and one.current else ""
        print(f"still there: {size} in {one.folder} ({one.purpose}){why}")
    return int(bool(stays))


def _drain_one(delivery: Delivery, end_s: float) -> None:
    from gateway.tracing.backlog import look  # noqa: PLC0415
    from gateway.tracing.delivery import Unavailable  # noqa: PLC0415
    from gateway.tracing.keeping import read_state  # noqa: PLC0415

    def facts() -> JSON:
        state = read_state(delivery.folder)
        return {name: state.get(name, 0) for name in ("sent", "quarantined", "interrupted")}

    before = facts()
    ended: list[str | bool] = []

    def deliver() -> None:
        try:
            ended.append(delivery.sender().drain(max(0.0, end_s - time.monotonic())))
        except Unavailable as error:
            ended.append(str(error))
        except OSError as error:
            ended.append(f"{error.filename or delivery.folder}: {error.strerror or error}")

    # in a thread: a destination that hangs must not hold this up for longer than was asked
    thread = threading.Thread(target=deliver, daemon=True)
    if delivery.folder.is_dir():
        thread.start()
        thread.join(max(0.0, end_s - time.monotonic()) + 1.0)
        if ended == [False]:
            waits = bool(look(delivery.sink, delivery.folder, delivery.cap_bytes).waiting_bytes)
            print(f"{delivery.sink}: a gateway runs and delivers by itself" + ("; waiting for it" if waits else ""))
            while time.monotonic() < end_s and look(delivery.sink, delivery.folder, delivery.cap_bytes).waiting_bytes:
                time.sleep(_POLL_S)
        elif not ended or isinstance(ended[0], str):
            why = str(ended[0]) if ended else "no answer within that time"
            print(visible(f"{delivery.sink}: {why}"), file=sys.stderr)
    after = facts()
    more = {name: after[name] - before[name] for name in after}
    aside = f", {more['quarantined']} put aside" if more["quarantined"] else ""
    cut_off = f" ({more['interrupted']} of them of interrupted calls)" if more["interrupted"] else ""
    print(f"{delivery.sink}: {counted(more['sent'], 'row')} delivered{cut_off}{aside}")


def _quarantine(options: argparse.Namespace) -> int:
    from gateway.assembly import spool_folder  # noqa: PLC0415

    settings = settings_or_faults()
    if settings is None:
        return 2
    top = spool_folder(settings)
    places = sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []
    if options.again:
        return _put_back(places, as_json=options.json)
    rows = [row for folder in places for row in _rows(folder)]
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))
        return 0
    for row in rows:
        about = str(row["request_id"] or "(a span under a root)")
        print(visible(f"{row['at'] or '?'}  {about:36}  {row['bytes']:>9} bytes  {row['why']}"))
    print(f"{counted(len(rows), 'row')} in quarantine" + (" (--again puts them back)" if rows else ""))
    return 0


def _rows(folder: Path) -> list[JSON]:
    from gateway.tracing.frames import dumps  # noqa: PLC0415
    from gateway.tracing.keeping import put_aside  # noqa: PLC0415

    found = []
    for path, line in put_aside(folder):
        row = line.get("row") if isinstance(line, dict) else None
        if isinstance(row, dict):
            found.append(
                {
                    "at": line.get("at"),
                    "why": line.get("why"),
                    "request_id": line.get("request"),
                    "row_id": row.get("id"),
                    "bytes": len(dumps(row)),
                    "file": str(path),
                }
            )
    return found


def _put_back(places: list[Path], *, as_json: bool) -> int:
    from gateway.tracing.requeue import requeue  # noqa: PLC0415

    back, unreadable, faults = 0, 0, list[str]()
    for folder in places:
        try:
            done = requeue(folder, settle_s=_WRITER_ENDS_S)
        except OSError as error:
            faults.append(f"{folder}: {error.strerror or error}")
            continue
        back, unreadable = back + done.rows, unreadable + done.unreadable
    if as_json:
        print(json.dumps({"put_back": back, "unreadable": unreadable, "faults": faults}, indent=2))
        return int(bool(faults or unreadable))
    then = "; a gateway that runs delivers them, else `gateway spool drain`" if back else ""
    print(f"back in the spool: {counted(back, 'row')}{then}")
    if unreadable:
        print(f"kept in quarantine/*.unreadable: {counted(unreadable, 'line')} that cannot be read", file=sys.stderr)
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults or unreadable))
