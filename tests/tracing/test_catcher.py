"""What Braintrust's patch logs is caught, and the private names of the SDK that this needs are still there."""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import braintrust
import pytest
from braintrust import logger as sdk
from braintrust.span_identifier_v4 import SpanComponentsV4
from braintrust.util import LazyValue

from gateway.tracing.catcher import Catcher, Held

JSON = dict[str, Any]
PARENT, ROOT = "1" * 16, "2" * 32


def held() -> Held:
    return Held("row-1", PARENT, ROOT)


@contextmanager
def under(catcher: Catcher, place: Held) -> Iterator[None]:
    """What the patch does around a call of LiteLLM."""
    with catcher.holding(place), braintrust.parent_context(place.slug):
        yield


def piece(**fields: Any) -> LazyValue[JSON]:
    return LazyValue(lambda: {"id": "a", "span_id": "s", **fields}, use_mutex=False)


# The SDK that is installed.


def test_the_state_still_keeps_its_logger_under_the_name_that_is_replaced() -> None:
    state = sdk._internal_get_global_state()
    assert isinstance(state._global_bg_logger, LazyValue), "the SDK has moved its background logger"
    assert "_global_bg_logger" in inspect.getsource(type(state).global_bg_logger)


def test_the_catcher_can_all_that_the_sdk_asks_of_its_logger() -> None:
    asked = {name for name in vars(sdk._BackgroundLogger) if not name.startswith("_")}
    assert asked, "the SDK has renamed the base class of its loggers"
    assert asked - set(vars(Catcher)) == set()
    for name in asked:
        theirs, ours = (inspect.signature(getattr(owner, name)) for owner in (sdk._BackgroundLogger, Catcher))
        assert [one.kind for one in ours.parameters.values()] == [one.kind for one in theirs.parameters.values()], name


def test_the_sdks_logger_is_the_catcher_once_it_is_installed(catcher: Catcher) -> None:
    assert sdk._internal_get_global_state().global_bg_logger() is catcher


def test_a_held_place_is_a_parent_that_the_sdk_reads() -> None:
    span = SpanComponentsV4.from_str(held().slug)
    assert (span.row_id, span.span_id, span.root_span_id) == ("row-1", PARENT, ROOT)
    assert span.object_id, "without one the SDK would have to log in"


# Catching.


def test_a_span_of_the_sdk_is_caught_whole_under_its_parent(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        span = braintrust.start_span(name="Completion", type="llm", input="asked")
        span.log(output="said", metadata={"a": 1})
        span.log(metadata={"b": 2}, metrics={"tokens": 3})
        span.end()
    row = place.row()
    assert row is not None
    assert row["span_attributes"]["name"] == "Completion"
    assert (row["input"], row["output"], row["metadata"]) == ("asked", "said", {"a": 1, "b": 2})
    assert row["metrics"]["tokens"] == 3
    assert row["metrics"]["end"] >= row["metrics"]["start"]
    assert (row["span_parents"], row["root_span_id"]) == ([PARENT], ROOT)


def test_where_a_span_goes_and_which_line_made_it_are_not_kept(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        braintrust.start_span(name="x").end()
    row = place.row()
    assert row is not None
    assert not {"project_id", "experiment_id", "log_id", "context", "_is_merge"} & set(row)


def test_pieces_are_merged_and_the_first_is_right_about_the_place(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        catcher.log(
            piece(created="1", span_parents=["p"], metadata={"a": {"x": 1}}, tags=["t"]),
            piece(created="2", span_parents=["q"], metadata={"a": {"y": 2}, "b": 1}, tags=["u"], output="o"),
        )
    assert place.row() == {
        "id": "a",
        "span_id": "s",
        "created": "1",
        "span_parents": ["p"],
        "metadata": {"a": {"x": 1, "y": 2}, "b": 1},
        "tags": ["u"],
        "output": "o",
    }


def test_a_piece_that_comes_outside_the_place_still_belongs_to_its_span(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        span = braintrust.start_span(name="x")
    span.log(output="later")
    row = place.row()
    assert row is not None
    assert row["output"] == "later"


def test_late_pieces_of_a_span_that_is_written_are_dropped(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        span = braintrust.start_span(name="x")
    catcher.forget(place)
    before = place.row()
    span.log(output="too late")
    span.end()
    assert place.row() == before
    assert catcher._by_span == {}


def test_what_starts_outside_any_place_is_dropped(catcher: Catcher) -> None:
    catcher.log(piece())
    assert catcher._by_span == {}


def test_a_place_without_a_span_has_no_row(catcher: Catcher) -> None:
    place = held()
    with under(catcher, place):
        pass
    assert place.row() is None
    catcher.forget(place)


def test_a_piece_that_cannot_be_made_harms_nobody(catcher: Catcher, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> JSON:
        raise RuntimeError("the SDK changed its mind")

    place = held()
    with under(catcher, place), caplog.at_level(logging.ERROR):
        catcher.log(LazyValue(fails, use_mutex=False), piece(output="o"))
    assert place.rows["s"]["output"] == "o"
    assert "could not be taken" in caplog.text


def test_the_calls_of_many_threads_do_not_mix(catcher: Catcher) -> None:
    places = [Held(f"row-{number}", f"{number:016x}", f"{number:032x}") for number in range(1, 21)]
    start = threading.Barrier(len(places))

    def trace(place: Held) -> None:
        start.wait()
        with under(catcher, place):
            span = braintrust.start_span(name=place.slug)
            span.log(output=place.slug)
            span.end()

    threads = [threading.Thread(target=trace, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, place in enumerate(places, 1):
        [row] = place.rows.values()
        assert (row["output"], row["span_parents"]) == (place.slug, [f"{number:016x}"])


def test_flushing_and_closing_the_sdk_does_nothing(catcher: Catcher) -> None:
    catcher.flush()
    catcher.flush(100)
    catcher.enforce_queue_size_limit(True)
    catcher.set_masking_function(None)
    catcher.internal_replace_api_conn(None)


def test_the_sdk_asks_nothing_of_its_logger_that_the_catcher_does_not_have(catcher: Catcher) -> None:
    source = inspect.getsource(sdk)
    asked = set(re.findall(r"global_bg_logger\(\)\s*\.(\w+)", source))
    assert "log" in asked, "the SDK logs spans in another way"
    assert asked - set(dir(catcher)) == set()
    assert isinstance(LazyValue(lambda: catcher, use_mutex=False).get(), Catcher)
