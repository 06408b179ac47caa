"""Delivers traces to Braintrust through its SDK.

The SDK's queue is in memory: it survives neither a killed process nor a long outage. It never blocks a call.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import braintrust
from braintrust.logger import BraintrustState
from braintrust.util import LazyValue

from gateway.core.calls import Parent
from gateway.secret import Secret

JSON = dict[str, Any]

log = logging.getLogger(__name__)


class Delivery:
    """A sink (tracing.Sink) that sends rows with a logger of the SDK's, in a state of its own.

    Args:
        api_key: Braintrust's.
        project: for traces that name no other; made when the first one arrives, where it does not exist.
        app_url, api_url, org_name: as the SDK's own variables have them; None for its defaults.
    """

    def __init__(
        self,
        api_key: Secret,
        project: str,
        app_url: str | None = None,
        api_url: str | None = None,
        org_name: str | None = None,
    ) -> None:
        self._login = {"api_key": api_key.reveal(), "app_url": app_url, "org_name": org_name}
        self._project = project
        self._api_url = api_url
        self._state: Any = None
        self._project_logger: Callable[[str], Any] = lru_cache(maxsize=64)(self._make_logger)

    def start(self) -> None:
        """Make the SDK's logger in this process; it logs in when the first row is sent, in its own thread."""
        if self._api_url is not None:
            os.environ["BRAINTRUST_API_URL"] = self._api_url  # the SDK takes it from there alone
        # the SDK's own flush at exit can block for minutes; `close` does it, bounded
        os.environ.setdefault("BRAINTRUST_DISABLE_ATEXIT_FLUSH", "1")
        self._state = BraintrustState()
        self._state.global_bg_logger().outfile = _Log()
        self._project_logger(self._project)

    def _make_logger(self, project: str) -> Any:
        return braintrust.init_logger(project=project, set_current=False, state=self._state, **self._login)

    def write(self, rows: Sequence[JSON], parent: Parent | None) -> None:
        """Queue the rows of a trace (tracing.Sink)."""
        if self._state is None:
            raise RuntimeError("start() has not run in this process")
        place = LazyValue(lambda: self._place(parent), use_mutex=True)
        self._state.global_bg_logger().log(
            *(LazyValue(lambda row=row: {**row, **place.get(), "_is_merge": False}, use_mutex=False) for row in rows)
        )

    def _place(self, parent: Parent | None) -> JSON:
        """Where the rows go. Runs in the SDK's publisher thread, where it may log in."""
        self._state.login(**self._login)
        if parent is None or parent.object_id is None:
            name = parent.object_name if parent is not None and parent.object_name else self._project
            return {"project_id": self._project_logger(name).id, "log_id": "g"}
        if parent.object_type == "experiment":
            return {"experiment_id": parent.object_id}
        if parent.object_type == "playground_logs":
            return {"prompt_session_id": parent.object_id, "log_id": "x"}
        return {"project_id": parent.object_id, "log_id": "g"}

    def close(self, timeout_s: float) -> None:
        """Send what is queued, for at most `timeout_s` (tracing.Sink)."""
        if self._state is None:
            return
        flushing = threading.Thread(target=self._flush, name="braintrust-flush", daemon=True)
        flushing.start()
        flushing.join(timeout_s)
        if flushing.is_alive():
            log.error("Braintrust did not take all traces within %.1f s; what was left is lost", timeout_s)

    def _flush(self) -> None:
        try:
            self._state.global_bg_logger().flush()
        except Exception:
            log.exception("the last traces could not be sent to Braintrust")


class _Log(io.TextIOBase):
    """Turns what the SDK prints about its failures into log lines, its tracebacks into their last line."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip() and not line.startswith((" ", "Traceback", "\t")):
                log.warning("%s", line)
        return len(text)
