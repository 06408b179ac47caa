"""Catches the spans that Braintrust's patch of LiteLLM logs, so that they are written with the call's root.

The patch logs through the SDK's background logger: a queue in memory that drops what it cannot send. The catcher takes
that logger's place. It reaches into two private names of the SDK (`_internal_get_global_state` and the state's
`_global_bg_logger`); `tests/tracing/test_catcher.py` fails on an SDK that moved them.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: Stands for the project in a caught span; with an object id the SDK has nothing to look up, so it does not log in.
_SOMEWHERE = "00000000-0000-0000-0000-000000000000"

#: Set by the first piece of a span, whatever later ones say.
_FIRST_WINS = frozenset({"id", "span_id", "root_span_id", "span_parents", "created"})
#: Where the span goes is the trace's to say; the caller's place in the gateway's source is nobody's business.
_NOT_KEPT = frozenset({"project_id", "experiment_id", "log_id", "_is_merge", "context"})


class Held:
    """What is caught under one span."""

    def __init__(self, row_id: str, span_id: str, root_span_id: str) -> None:
        self._ids = {"row_id": row_id, "span_id": span_id, "root_span_id": root_span_id}
        self.rows: dict[str, JSON] = {}

    @cached_property
    def slug(self) -> str:
        """The span's name as the SDK reads it; made where the patch runs, and not for calls that it never sees."""
        from braintrust.span_identifier_v4 import SpanComponentsV4, SpanObjectTypeV3  # noqa: PLC0415  # see Catcher

        span = SpanComponentsV4(object_type=SpanObjectTypeV3.PROJECT_LOGS, object_id=_SOMEWHERE, **self._ids)
        return str(span.to_str())

    def row(self) -> JSON | None:
        """The span that was caught, or None where the attempt went another way than through the patch."""
        for row in self.rows.values():
            return {key: value for key, value in row.items() if key not in _NOT_KEPT}
        return None


_current: contextvars.ContextVar[Held | None] = contextvars.ContextVar("held", default=None)


class Holding:
    """See `Catcher.holding`. A class, since each attempt enters one, and a generator takes three times as long."""

    __slots__ = ("_held", "_token")

    def __init__(self, held: Held) -> None:
        self._held = held

    def __enter__(self) -> None:
        self._token = _current.set(self._held)

    def __exit__(self, *_raised: object) -> None:
        _current.reset(self._token)


def _under_held(traced: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    held = _current.get()
    if held is None:
        return traced(*args, **arguments)
    import braintrust  # noqa: PLC0415  # see Catcher

    with braintrust.parent_context(held.slug):
        return traced(*args, **arguments)


#: The one that was installed last.
_installed: Catcher | None = None


class Catcher:
    """Stands in for the SDK's background logger; its public methods up to `set_masking_function` are the SDK's.

    The SDK is imported where LiteLLM is: a third of a second of the start that a gateway which relays has no use for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_span: dict[str, Held] = {}

    def install(self) -> None:
        """Take the place of this process's background logger, as soon as there is one."""
        global _installed
        _installed = self
        if "braintrust" in sys.modules:
            self._stand_in()

    def _stand_in(self) -> None:
        from braintrust.logger import _internal_get_global_state  # noqa: PLC0415  # as above
        from braintrust.util import LazyValue  # noqa: PLC0415

        stand_in = LazyValue(lambda: self, use_mutex=False)
        stand_in.get()
        _internal_get_global_state()._global_bg_logger = stand_in

    @staticmethod
    def patch(calls: Any) -> None:
        """Patch an object that has LiteLLM's `completion`: each call of it from now on is a span of who holds it."""
        from braintrust.wrappers.litellm import wrap_litellm  # noqa: PLC0415  # as above

        wrap_litellm(calls)
        if _installed is not None:
            _installed._stand_in()
        for name, traced in list(vars(calls).items()):
            if callable(traced):
                setattr(calls, name, partial(_under_held, traced))

    def holding(self, held: Held) -> Holding:
        """Catch under `held` whatever starts in this context."""
        return Holding(held)

    def forget(self, held: Held) -> None:
        """Let go of what was caught; later pieces of it are dropped."""
        if not held.rows:  # nothing of it was ever known by its span
            return
        with self._lock:
            for span_id in held.rows:
                self._by_span.pop(span_id, None)

    # what the SDK calls

    def log(self, *records: Any) -> None:
        """Take pieces of spans."""
        for record in records:
            try:
                self._take(record.get())
            except Exception:
                log.exception("a span of Braintrust's patch could not be taken")

    def flush(self, batch_size: int | None = None) -> None:
        """Nothing: what was taken is written with its root."""

    def enforce_queue_size_limit(self, enforce: bool) -> None:
        """Nothing: there is no queue."""

    def internal_replace_api_conn(self, api_conn: Any) -> None:
        """Nothing: nothing is sent from here."""

    def set_masking_function(self, masking_function: Any) -> None:
        """Nothing: rows are redacted when they are built."""

    def _take(self, piece: JSON) -> None:
        span_id = piece["span_id"]
        with self._lock:
            held = self._by_span.get(span_id)
            if held is None:
                held = _current.get()
                if held is None:
                    return  # a late piece of a span that is written already
                held.rows[span_id] = piece
                self._by_span[span_id] = held
            else:
                _merge(held.rows[span_id], piece)


def _merge(into: JSON, piece: JSON) -> None:
    for key, value in piece.items():
        if key in _FIRST_WINS and key in into:
            continue
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
