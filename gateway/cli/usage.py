"""`gateway usage`: what calls used and cost, from the ledger."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from gateway.cli import managing
from gateway.cli.arguments import MOMENTS, moment, names, one_or_more
from gateway.cli.managing import tell
from gateway.cli.screen import columns, visible

if TYPE_CHECKING:
    from gateway.cli.managing import Commands
    from gateway.settings import Settings
    from gateway.storage.usage import Sums, UsageRows

_HELP = """\
What calls used and cost, added up, from the database of the data folder (or DATABASE_URL), whether the gateway runs or
not. Without --since: since this month began (UTC). Groups: key, user, project, caller, model, provider, deployment,
operation, tag, hour, day, month; several have commas between. A call with two tags counts for both.

Exit status: 0; 1 when the database cannot be used; 2 when the arguments or the settings cannot be used."""

_FILTERS = ("key", "user", "project", "caller", "model", "provider", "deployment", "tag", "operation")


def add(commands: Commands) -> None:
    """Add the command `usage`."""
    parser = managing.add(commands, "usage", "what calls used and cost", _usage, _rows)
    parser.description = _HELP
    parser.add_argument("--by", type=names, default=("model",), metavar="NAMES", help="what to group by (model)")
    parser.add_argument("--since", type=moment, metavar="TIME", help=f"calls that began since then: {MOMENTS}")
    parser.add_argument("--until", type=moment, metavar="TIME", help="calls that began before then")
    for name in _FILTERS:
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    parser.add_argument("--limit", type=one_or_more, default=1000, metavar="N", help="how many groups at most (1000)")
    parser.add_argument("--csv", action="store_true", help="print CSV")


def _rows(settings: Settings) -> UsageRows:
    from gateway import assembly  # noqa: PLC0415  # slow, and not every command needs it

    managing.make_database(settings)
    return assembly.usage_rows(settings)


def _usage(rows: UsageRows, options: argparse.Namespace) -> int:
    from gateway.ledger.reports import by_of, month_began_s, report_csv, report_document  # noqa: PLC0415  # as above
    from gateway.storage.usage import Wanted  # noqa: PLC0415

    by = by_of(",".join(options.by))
    since_s = month_began_s(time.time()) if options.since is None else options.since
    wanted = Wanted(since_s, options.until, **{name: getattr(options, name) for name in _FILTERS})
    report = rows.report(wanted, by, limit=options.limit)
    if options.csv:
        print(visible(report_csv(report, by), keep="\r\n"), end="")
    elif options.json:
        print(json.dumps(report_document(report, wanted, by)).replace("\x7f", "\\u007f"))
    else:
        lines = [(*(value or "-" for value in one.by.values()), *_cells(one)) for one in report.groups]
        if by:
            lines.append(("total", *("" for _ in by[1:]), *_cells(report.total)))
        else:
            lines = [_cells(report.total)]
        columns((*by, "requests", "failed", "lost", "prompt", "cached", "completion", "usd", "unpriced"), lines)
    if report.more:
        tell(f"There are more groups than {options.limit}: --limit takes another number.")
    return 0


def _cells(sums: Sums) -> tuple[str, ...]:
    tokens = sums.tokens
    return (
        *(str(count) for count in (sums.requests, sums.failed, sums.lost)),
        *(str(tokens[f"{kind}_tokens"]) for kind in ("prompt", "cached", "completion")),
        f"{sums.cost_nano / 1e9:.6f}",
        str(sums.unpriced),
    )
