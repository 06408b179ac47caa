"""Braintrust down, hanging or refusing: callers do not notice, and neither start nor exit hangs."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.braintrust_server import FakeBraintrust, Mode
from tests.fakes.provider import FakeProvider, delta, done, pause, sse
from tests.served.caller import Caller, Streamed
from tests.served.process import BRAINTRUST_KEY, TOKEN, Served
from tests.served.traces import is_root, text_of

pytestmark = pytest.mark.long  # bench/sink_faults.py has more kinds of it

#: 5 s for the flush, and up to as long for two interpreters with LiteLLM to end; what hangs takes the grace of 25 s.
EXIT_S = 15.0


@pytest.mark.parametrize(("at_start", "at_exit"), [("refuse_500", "down"), ("hang", "hang")])
def test_callers_do_not_notice_that_no_trace_is_taken(
    tmp_path: Path, settings: dict[str, str], at_start: Mode, at_exit: str
) -> None:
    began_s = time.monotonic()
    with FakeBraintrust(BRAINTRUST_KEY) as troubled:
        troubled.mode = at_start
        with Served(tmp_path, settings | troubled.environment()) as served:
            assert time.monotonic() - began_s < 30
            _calls_are_answered(served)
            if at_exit == "down":
                troubled.close()
                _calls_are_answered(served)
            assert "Traceback" not in served.log
            assert served.stop() < EXIT_S
        troubled.mode = "ok"


def _calls_are_answered(served: Served) -> None:
    with Caller(served.url, TOKEN) as caller:
        assert caller.chat("openai/first").elapsed.total_seconds() < 3
        with ThreadPoolExecutor(10) as pool:
            streams = list(pool.map(lambda number: caller.stream(f"openai/stream-{number}"), range(10)))
        assert all(one.ends_well for one in streams)
        assert max(one.times_s[-1] for one in streams) < 4
        time.sleep(1.5)  # by now the first delivery has failed, or hangs
        assert caller.chat("openai/last").elapsed.total_seconds() < 1


def test_sigterm_cuts_no_stream_and_loses_no_trace(
    tmp_path: Path, settings: dict[str, str], provider: FakeProvider, braintrust: FakeBraintrust, model: str
) -> None:
    provider.script(model, sse(delta({"content": "until"}), pause(2), delta({"content": " the end"}, "stop"), done()))

    def stream(served: Served) -> Streamed:
        with Caller(served.url, TOKEN) as caller:
            return caller.stream(f"openai/{model}", "last words 3")

    with Served(tmp_path, settings | braintrust.environment()) as served, ThreadPoolExecutor(1) as pool:
        with Caller(served.url, TOKEN) as caller:
            assert caller.chat("openai/a", "last words 1").status_code == 200
            assert caller.stream("openai/a", "last words 2").ends_well
        streaming = pool.submit(stream, served)
        provider.wait_for(1, model)
        served.stop(20)
        assert streaming.result(1).ends_well
        assert streaming.result().text() == "until the end"
    said = [text_of(row) for row in braintrust.rows() if is_root(row)]
    for number, answered in ((1, "hello there"), (2, "hello there"), (3, "until the end")):
        assert sum(f"last words {number}" in row and answered in row for row in said) == 1
