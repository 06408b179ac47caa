"""Where a caller wants its trace: every valid form is read, and everything else is ignored and said to be."""

from __future__ import annotations

import base64
import json
from typing import Any

import braintrust
import pytest
from braintrust.span_identifier_v3 import SpanComponentsV3
from braintrust.span_identifier_v4 import SpanComponentsV4, SpanObjectTypeV3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.calls import Parent
from gateway.tracing.catcher import Catcher, Held
from gateway.tracing.parents import export_slug, read_parent

SPAN, ROOT = "b" * 16, "a" * 32
UNREAD = "x-bt-parent cannot be read"


def read(**headers: str) -> tuple[Parent | None, str | None]:
    return read_parent({name.replace("_", "-"): value for name, value in headers.items()})


# Valid forms.


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        ("project_id:p-1", Parent(object_id="p-1")),
        ("project_name:my project: two", Parent(object_name="my project: two")),
        ("project_name:Ümläut", Parent(object_name="Ümläut")),
        ("experiment_id:e-1", Parent("experiment", object_id="e-1")),
        ("  project_id:p-1 ", Parent(object_id="p-1")),
    ],
)
def test_an_object_is_named(value: str, parent: Parent) -> None:
    assert read(x_bt_parent=value) == (parent, None)


@pytest.mark.parametrize("kind", list(SpanObjectTypeV3))
@pytest.mark.parametrize("version", [SpanComponentsV3, SpanComponentsV4])
def test_an_exported_span_of_any_kind_is_read(kind: SpanObjectTypeV3, version: Any) -> None:
    root = "0ba4a1c8-3f0e-4f6e-9d4b-6f3f5a9f0a11"  # the older version has UUIDs
    exported = version(object_type=kind, object_id="o-1", row_id="r-1", span_id=SPAN, root_span_id=root).to_str()
    parent, note = read(x_bt_parent=exported)
    assert note is None
    named = {1: "experiment", 2: "project_logs", 3: "playground_logs"}[kind.value]
    assert parent == Parent(named, object_id="o-1", row_id="r-1", span_id=SPAN, root_span_id=root)


def test_an_exported_span_may_name_its_project_and_hand_down_an_event() -> None:
    exported = SpanComponentsV4(
        object_type=SpanObjectTypeV3.PROJECT_LOGS,
        compute_object_metadata_args={"project_name": "mine"},
        propagated_event={"metadata": {"a": 1}},
    ).to_str()
    assert read(x_bt_parent=exported) == (Parent(object_name="mine", propagated={"metadata": {"a": 1}}), None)


def test_a_real_span_of_the_sdk_is_read(catcher: Catcher) -> None:
    place = Held("r", SPAN, ROOT)
    with catcher.holding(place), braintrust.parent_context(place.slug):
        span = braintrust.start_span(name="theirs")
        parent, note = read(x_bt_parent=span.export())
        span.end()
    assert note is None
    assert parent is not None
    assert (parent.span_id, parent.root_span_id) == (span.span_id, ROOT)


@pytest.mark.parametrize(
    ("baggage", "parent"),
    [
        ("braintrust.parent=project_name:mine", Parent(object_name="mine", span_id=SPAN, root_span_id=ROOT)),
        ("a=b, braintrust.parent=project_id%3Ap-1;x=y ,c", Parent(object_id="p-1", span_id=SPAN, root_span_id=ROOT)),
        ("braintrust.parent=experiment_id:e", Parent("experiment", object_id="e", span_id=SPAN, root_span_id=ROOT)),
    ],
)
def test_a_traceparent_with_its_baggage_is_read(baggage: str, parent: Parent) -> None:
    assert read(traceparent=f"00-{ROOT}-{SPAN}-01", baggage=baggage) == (parent, None)


def test_a_traceparent_alone_is_somebody_elses_and_no_fault() -> None:
    assert read(traceparent=f"00-{ROOT}-{SPAN}-01") == (None, None)
    assert read(traceparent=f"00-{ROOT}-{SPAN}-01", baggage="a=b") == (None, None)
    assert read(baggage="braintrust.parent=project_id:p") == (None, None)
    assert read() == (None, None)


def test_x_bt_parent_comes_before_traceparent() -> None:
    other = {"traceparent": f"00-{ROOT}-{SPAN}-01", "baggage": "braintrust.parent=project_id:p-2"}
    assert read(x_bt_parent="project_id:p-1", **other) == (Parent(object_id="p-1"), None)
    assert read(x_bt_parent="rubbish", **other) == (None, UNREAD)


# Garbage.


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "project_id:",
        "project_name:",
        "dataset_id:x",
        "x:y",
        "project_id:" + "x" * 257,
        "project_name:a\nb",
        "project_name:a\x00b",
        "AAAA",
        "====",
        "é",
        "x" * 10_000,
        base64.b64encode(b"\x04\x02\xff").decode(),
        base64.b64encode(b"\x04\x63\x00{}").decode(),
        base64.b64encode(b"\x03").decode(),
        base64.b64encode(b"\x02{}").decode(),
        base64.b64encode(b'\x04\x02\x00{"object_id":""}').decode(),
        base64.b64encode(b'\x04\x02\x00{"object_id":1}').decode(),
        base64.b64encode(b'\x04\x02\x00{"object_id":"x","row_id":"r"}').decode(),
        base64.b64encode(b"\x04\x02\x00" + json.dumps({"object_id": "x" * 300}).encode()).decode(),
        base64.b64encode(b"\x04\x02\x00" + b"[" * 100_000).decode(),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_cannot_be_read_is_ignored_and_said_to_be(value: str) -> None:
    assert read(x_bt_parent=value) == (None, UNREAD)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        f"01-{ROOT}-{SPAN}-01",
        f"00-{ROOT.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ROOT}-{'0' * 16}-01",
        f"00-{ROOT}-{SPAN}-01-more",
        f"00-{ROOT}-{SPAN}",
    ],
)
def test_a_traceparent_that_is_none_is_ignored_and_said_to_be(traceparent: str) -> None:
    got = read(traceparent=traceparent, baggage="braintrust.parent=project_id:p")
    assert got == (None, "traceparent or its baggage cannot be read")


@pytest.mark.parametrize("place", ["", "rubbish", "project_id:", "%ff%fe", "a%0ab"])
def test_baggage_that_names_nothing_is_ignored_and_said_to_be(place: str) -> None:
    got = read(traceparent=f"00-{ROOT}-{SPAN}-01", baggage=f"braintrust.parent={place}")
    assert got == (None, "traceparent or its baggage cannot be read")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)
slugs = st.builds(
    lambda version, kind, fields: base64.b64encode(bytes([version, kind, 0]) + json.dumps(fields).encode()).decode(),
    st.sampled_from([3, 4, 5]),
    st.integers(0, 4),
    st.fixed_dictionaries(
        {},
        optional={
            "object_id": json_values | st.just("o"),
            "compute_object_metadata_args": json_values | st.just({"project_name": "p"}),
            "row_id": json_values | st.just("r"),
            "span_id": json_values | st.just("s"),
            "root_span_id": json_values | st.just("t"),
            "propagated_event": json_values,
            "unknown": json_values,
        },
    ),
)


def slug(**fields: Any) -> str:
    return base64.b64encode(b"\x04\x02\x00" + json.dumps(fields).encode()).decode()


@settings(deadline=None, max_examples=400)
@given(st.text(max_size=60) | slugs | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()))
@example(slug(object_id="", compute_object_metadata_args="x"))
@example(slug(object_id="", compute_object_metadata_args=[1]))
@example(slug(compute_object_metadata_args={"project_name": ["x"]}))
@example(slug(object_id="o", propagated_event="x"))
def test_whatever_a_stranger_sends_is_a_parent_or_ignored_and_said_to_be(value: str) -> None:
    parent, note = read(x_bt_parent=value)
    assert (parent is None) == (note is not None)
    if parent is not None:
        assert parent.object_type in ("project_logs", "experiment", "playground_logs")
        assert (parent.object_id is None) != (parent.object_name is None)
        for text in (parent.object_id, parent.object_name, parent.row_id, parent.span_id, parent.root_span_id):
            assert text is None or (isinstance(text, str) and len(text) <= 256)
        assert parent.propagated is None or isinstance(parent.propagated, dict)
        assert export_slug(parent, "project", "row", SPAN, ROOT)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_traceparent_holds_nothing_breaks(traceparent: str, baggage: str) -> None:
    for place in (baggage, f"braintrust.parent={baggage}"):
        parent, note = read(traceparent=traceparent, baggage=place)
        assert parent is None or note is None


# Naming a span of ours.


@pytest.mark.parametrize(
    ("parent", "object_id", "named"),
    [
        (None, None, {"project_name": "ours"}),
        (Parent(object_name="theirs"), None, {"project_name": "theirs"}),
        (Parent(object_id="p-1"), "p-1", None),
        (Parent("experiment", object_id="e-1", span_id=SPAN, root_span_id=ROOT), "e-1", None),
    ],
)
def test_an_export_names_the_object_and_the_span(
    parent: Parent | None, object_id: str | None, named: dict[str, str] | None
) -> None:
    span = SpanComponentsV4.from_str(export_slug(parent, "ours", "row-1", SPAN, ROOT))
    assert (span.object_id, span.compute_object_metadata_args) == (object_id, named)
    assert (span.row_id, span.span_id, span.root_span_id) == ("row-1", SPAN, ROOT)
    assert (span.object_type == SpanObjectTypeV3.EXPERIMENT) == (object_id == "e-1")


def test_what_is_exported_is_read_again() -> None:
    exported = export_slug(Parent(object_id="p-1"), "ours", "row-1", SPAN, ROOT)
    assert read(x_bt_parent=exported) == (
        Parent(object_id="p-1", row_id="row-1", span_id=SPAN, root_span_id=ROOT),
        None,
    )


def test_the_sdk_hangs_a_span_under_what_is_exported(catcher: Catcher) -> None:
    """`start_span(parent=…)`, as a caller does with `x-bt-span-export`."""
    exported = export_slug(Parent(object_id="p-1"), "ours", "row-1", SPAN, ROOT)
    place = Held("other", "c" * 16, "d" * 32)
    with catcher.holding(place):
        braintrust.start_span(name="theirs", parent=exported).end()
    [row] = place.rows.values()
    assert (row["span_parents"], row["root_span_id"], row["project_id"]) == ([SPAN], ROOT, "p-1")


@pytest.mark.parametrize("project", ["llm-gateway", 'a "quoted" näme', "\N{PILE OF POO}"])
def test_what_is_exported_is_what_the_sdk_would_write(project: str) -> None:
    theirs = SpanComponentsV4(
        object_type=SpanObjectTypeV3.PROJECT_LOGS,
        compute_object_metadata_args={"project_name": project},
        row_id="row-1",
        span_id=SPAN,
        root_span_id=ROOT,
    ).to_str()
    assert export_slug(None, project, "row-1", SPAN, ROOT) == theirs
