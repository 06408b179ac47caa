"""Log lines: one JSON object each, or one line each for people. No record can forge another.

Only the gateway and gunicorn write at the level that is set. A library writes warnings and worse: below that,
several of them write whole requests, keys included.
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.core.redaction import REDACTED, Redactor

#: The second of the last line, and how lines write it.
_second = [(0, "1970-01-01T00:00:00")]
_ENCODER = json.JSONEncoder(allow_nan=False)

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR"}
#: Libraries that set up loggers of their own: LiteLLM's have a handler, which would write each line twice.
_LIBRARIES = (
    "LiteLLM",
    "LiteLLM Router",
    "LiteLLM Proxy",
    "braintrust",
    "httpcore",
    "httpx",
    "openai",
    "urllib3",
)
#: Libraries whose warnings are our ordinary days: connections beyond the pool are closed after use.
_QUIET = ("urllib3.connection", "urllib3.connectionpool")

#: What blots out; another one once the gateway's own credentials are known.
_net = [Redactor()]
#: How a library shows a key by its name; in a trace this would blot out callers' code, in a log line it may.
_NAMED_KEY = re.compile(r"(?i)(\bapi[-_]?key['\"]?\s*[=:]\s*['\"]?|\bbasic\s+)[^\s'\",}&]{6,}")


def configure(log_format: str, level: str) -> None:
    """Set up the log of this process.

    To be called again after `import litellm`, which gives its loggers a handler.

    Args:
        log_format: `json` or `pretty`.
        level: `debug`, `info`, `warning` or `error`.
    """
    logging.config.dictConfig(dict_config(log_format, level))


def dict_config(log_format: str, level: str) -> dict[str, Any]:
    """Return the same as a dictionary, which gunicorn takes as `logconfig_dict`."""
    ours = _LEVELS[level]
    libraries = "ERROR" if level == "error" else "WARNING"
    own = {"level": ours, "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": _FORMATTERS[log_format]}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {
            "gateway": own,
            "gunicorn.error": own,
            # The app writes that line itself, on any server; with a dictionary gunicorn would write one too.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            **{name: {"level": libraries, "handlers": [], "propagate": True} for name in _LIBRARIES},
            **{name: {"level": "ERROR", "propagate": True} for name in _QUIET},
        },
        "root": {"level": libraries, "handlers": ["stderr"]},
    }


class _Line(logging.Formatter):
    """What both formats share."""

    def parts(self, record: logging.LogRecord) -> tuple[str, dict[str, Any], str | None]:
        """Return (message, fields, traceback)."""
        fields = getattr(record, "fields", None)
        fields = dict(fields) if isinstance(fields, Mapping) else {}
        fields = {name: hide(value) if isinstance(value, str) else value for name, value in fields.items()}
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # The arguments do not fit: a line that says less is better than none.
            message = str(record.msg)
        if not record.name.startswith("gateway"):
            message = hide(message)  # gunicorn quotes header lines that it cannot read
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        told = "\n".join(filter(None, (trace, record.stack_info)))
        return message, fields, hide(told) or None


class JSONLine(_Line):
    """One JSON object a line, ASCII only: no character of a record can end the line or reach a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        return _clean_line(record) or self._hidden(record)

    def _hidden(self, record: logging.LogRecord) -> str:
        message, fields, trace = self.parts(record)
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        for name, value in fields.items():
            line.setdefault(str(name), value)
        if trace:
            line["exception"] = trace
        return _dumps(line)


def _clean_line(record: logging.LogRecord) -> str | None:
    """The line of a record in which there is nothing to hide, which one look at the whole of it tells; else None.

    An escape could be in the way of that look. Lines of requests are like this, and each costs a fifth.
    """
    fields = getattr(record, "fields", None)
    if (
        type(fields) is not dict
        or type(record.msg) is not str
        or record.args
        or record.exc_info
        or record.exc_text
        or record.stack_info
    ):
        return None
    line = {
        "time": _time(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.msg,
    }
    try:
        text = _ENCODER.encode({**line, **fields, **line})
    except (TypeError, ValueError):  # a value of another kind, NaN, a circle
        return None
    lower = text.lower()
    if "\\" in text or (("api" in lower or "basic" in lower) and _NAMED_KEY.search(text) is not None):
        return None
    return text if _net[0].is_clean(text.encode()) else None


class PrettyLine(_Line):
    """A line for people; a traceback follows it, indented, so that none of its lines looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, with its traceback."""
        message, fields, trace = self.parts(record)
        told = "".join(f" {_escaped(str(name))}={_dumps(value)}" for name, value in fields.items())
        line = f"{_time(record)} {record.levelname.lower():7} {record.name}: {_escaped(message)}{told}"
        return "\n    ".join([line, *(_escaped(row) for row in (trace or "").split("\n") if row)])


_FORMATTERS: Mapping[str, type[_Line]] = {"json": JSONLine, "pretty": PrettyLine}


def hide(text: str) -> str:
    """Blot out what looks like a credential: the last net, for what a library wrote into an error."""
    return _NAMED_KEY.sub(rf"\1{REDACTED}", _net[0].text(text))


def know(secrets: Iterable[str]) -> None:
    """Blot these credentials out from now on, whatever their shape, as they are and as an address has them."""
    _net[0] = Redactor(_spelt(secrets))


def learn(secrets: Iterable[str]) -> None:
    """Blot these out too."""
    _net[0].learn(_spelt(secrets))


def _spelt(secrets: Iterable[str]) -> list[str]:
    return [form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""))]


def _time(record: logging.LogRecord) -> str:
    second, microseconds = divmod(round(record.created * 1_000_000), 1_000_000)
    known, text = _second[0]
    if known != second:
        text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second[0] = second, text
    return f"{text}.{microseconds // 1000:03}Z"


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (TypeError, ValueError):  # a key that is no string, NaN, a circle
        if isinstance(value, dict):
            return json.dumps({str(name): _plain(item) for name, item in value.items()})
        return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _escaped(text: str) -> str:
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
