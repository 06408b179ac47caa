"""How traces look on a terminal, and in a pipe: there without colours, so that other tools can read it.

What is stored was written by strangers. Nothing of it is read as markup, and no control character of it gets out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.screen import visible
from gateway.tracing.search import Trace

JSON = dict[str, Any]

_BAR = 40
_PIPE_WIDTH = 10_000_000  # nothing is cut or wrapped where nobody looks
_MOST_ERROR = 100
_COLUMNS = ("time", "id", "status", "model", "tokens", "cost", "duration", "first", "caller", "error")
#: Of a line that follows others, whose widths are not known yet.
_WIDTHS = (19, 36, 11, 36, 11, 9, 8, 7, 12, 0)
_RIGHT = frozenset({"tokens", "cost", "duration", "first"})
#: What an LLM row's metadata has beside the request's parameters.
_NOT_PARAMETERS = frozenset(
    {
        "model",
        "provider",
        "served_model",
        "response_id",
        "finish_reasons",
        "attempt",
        "usage_estimated",
        "dropped_params",
    }
)


def json_line(value: Any) -> str:
    """Return one line of ASCII."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def facts(trace: Trace) -> JSON:
    """Return what a list says of a trace, for programs."""
    told = {name: value for name, value in dataclasses.asdict(trace).items() if name != "seq"}
    return {**told, "started": datetime.fromtimestamp(trace.started, UTC).isoformat()}


def table(traces: Sequence[Trace]) -> None:
    """Print a list with its header."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in _COLUMNS:
        made.add_column(
            name,
            justify="right" if name in _RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=19 if name == "time" else 36 if name == "id" else None,
        )
    for trace in traces:
        made.add_row(*(Text(cell) for cell in _cells(trace)), style="red" if _failed(trace) else "")
    _print(made)


def lines(traces: Sequence[Trace], *, header: bool) -> None:
    """Print traces in columns of a fixed width, at once, so that others can follow."""
    rows = [list(_COLUMNS)] if header else []
    rows += [_cells(trace) for trace in traces]
    for row in rows:
        cells = zip(_COLUMNS, row, _WIDTHS, strict=True)
        padded = (cell.rjust(width) if name in _RIGHT else cell.ljust(width) for name, cell, width in cells)
        print("  ".join(padded).rstrip())
    sys.stdout.flush()


def trace(one: Trace, rows: Sequence[JSON]) -> None:
    """Print all of one trace."""
    root, spans = rows[-1], rows[:-1]
    parts: list[Text | Table] = [Text(visible(one.name or one.id), style="bold"), _pairs(_summary(one))]
    parts += [Text("\ntimeline", style="bold"), _timeline(one, root, spans)]
    for title, value in (("input", root.get("input")), ("output", root.get("output")), ("error", root.get("error"))):
        if value is not None:
            parts += [Text(f"\n{title}", style="bold red" if title == "error" else "bold"), _content(value)]
    if spans and (parameters := _parameters(spans[-1])):
        parts += [Text("\nparameters", style="bold"), _pairs(parameters)]
    _print(*parts)


def _print(*parts: Text | Table) -> None:
    if sys.stdout.isatty():
        Console(highlight=False, markup=False, emoji=False).print(*parts, sep="\n", soft_wrap=False)
        return
    plain = Console(
        color_system=None, force_terminal=False, width=_PIPE_WIDTH, highlight=False, markup=False, emoji=False
    )
    with plain.capture() as held:
        plain.print(*parts, sep="\n")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in held.get().splitlines()))


def _cells(one: Trace) -> list[str]:
    served = f" → {one.served_model}" if one.served_model and one.served_model != one.model else ""
    status = str(one.status if one.status is not None else "-")
    tokens = f"{_number(one.prompt_tokens)}/{_number(one.completion_tokens)}" if one.prompt_tokens is not None else "-"
    error = one.error or ("the caller left" if one.caller_gone else "")
    return [
        visible(cell)
        for cell in (
            datetime.fromtimestamp(one.started).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            one.request_id,
            one.state if one.state != "ended" else status,
            f"{one.model or '-'}{served}",
            tokens,
            _dollars(one.cost_usd),
            _seconds(None if one.duration_ms is None else one.duration_ms / 1000),
            _seconds(one.time_to_first_token_s),
            one.caller or "-",
            error if len(error) <= _MOST_ERROR else f"{error[: _MOST_ERROR - 1]}…",
        )
    ]


def _summary(one: Trace) -> JSON:
    stream = "stream" if one.stream else None
    return {
        "request": one.request_id,
        "trace": one.root_span_id,
        "began": datetime.fromtimestamp(one.started, UTC).isoformat(timespec="milliseconds"),
        "status": ", ".join(filter(None, (str(one.status or "-"), one.state, one.error_code, stream))),
        "model": one.model,
        "served": " by ".join(filter(None, (one.served_model, one.provider))) or None,
        "caller": f"{one.caller or '-'}{' (left before the end)' if one.caller_gone else ''}",
        "tokens": None
        if one.prompt_tokens is None
        else f"{one.prompt_tokens} in ({_number(one.cached_tokens)} cached), {_number(one.completion_tokens)} out",
        "cost": None if one.cost_usd is None else _dollars(one.cost_usd),
        "first token": None if one.time_to_first_token_s is None else _seconds(one.time_to_first_token_s),
        "tags": ", ".join(one.tags) or None,
    }


def _timeline(one: Trace, root: JSON, spans: Sequence[JSON]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    ends = [_metric(row, "end") or _metric(row, "start") or one.started for row in (*spans, root)]
    whole_s = max(max(ends) - one.started, 1e-6)
    for row in (root, *spans):
        start_s = (_metric(row, "start") or one.started) - one.started
        end_s = (_metric(row, "end") or max(ends)) - one.started
        first_s = _metric(row, "time_to_first_token")
        name = visible(str(_in(row, "span_attributes").get("name", "")))
        made.add_row(
            Text(name if row is root else f"  {name} {visible(str(_in(row, 'metadata').get('attempt', '')))}".rstrip()),
            Text(_seconds(start_s)),
            Text(_bar(start_s / whole_s, end_s / whole_s, None if first_s is None else (start_s + first_s) / whole_s)),
            Text(_seconds(end_s) if _metric(row, "end") is not None else "no end"),
            Text(visible(str(row["error"])) if row.get("error") is not None and row is not root else "", style="red"),
        )
    return made


def _bar(start: float, end: float, first: float | None) -> str:
    """Draw a span's share of the whole; `*` is its first token. ASCII in a pipe."""
    fill, mark = ("━", "●") if sys.stdout.isatty() else ("=", "*")
    at, to = (min(max(int(share * _BAR), 0), _BAR) for share in (start, end))
    signs = [" "] * at + [fill] * max(to - at, 1)
    signs = signs[:_BAR] if at < _BAR else [" "] * (_BAR - 1) + [fill]
    if first is not None:
        signs[min(max(int(first * _BAR), 0), len(signs) - 1)] = mark
    return f"|{''.join(signs).ljust(_BAR)}|"


def _content(value: Any) -> Text:
    """Show messages and choices by who speaks, and anything else as JSON."""
    said = value if isinstance(value, list) else [value]
    return Text("\n".join(line for item in said for line in _said(item)))


def _said(item: Any) -> Iterator[str]:
    message = item.get("message", item) if isinstance(item, dict) else item
    if not isinstance(message, dict) or "role" not in message:
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    else:
        content = message.get("content")
        rest = {name: part for name, part in message.items() if name not in ("role", "content") and part is not None}
        parts = [content] if isinstance(content, str) else [json.dumps(content, ensure_ascii=False)] if content else []
        text = f"{message['role']}: {' '.join([*parts, *([json.dumps(rest, ensure_ascii=False)] if rest else [])])}"
    for line in visible(text, keep="\n").split("\n"):
        yield f"  {line}"


def _parameters(row: JSON) -> JSON:
    return {name: value for name, value in _in(row, "metadata").items() if name not in _NOT_PARAMETERS}


def _pairs(values: JSON) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in values.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            made.add_row(Text(f"  {visible(name)}"), Text(visible(text)))
    return made


def _failed(one: Trace) -> bool:
    return one.error is not None or one.state == "interrupted" or (one.status or 0) >= 400


def _in(row: JSON, name: str) -> JSON:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _metric(row: JSON, name: str) -> float | None:
    value = _in(row, "metrics").get(name)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else None


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"${value:.6f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
