"""Where a caller wants its trace: under a span of its own, or in another project or experiment of Braintrust's."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import unquote

from gateway.core.calls import Headers, Parent

_LONGEST = 8192
#: As the SDK writes JSON. `json.dumps` would make one for each call.
_WRITER = json.JSONEncoder(separators=(",", ":"))

#: Span ids are hex (16 and 32 digits) or, from older SDKs, UUIDs; row ids are the caller's own choice.
_SPAN_ID = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")  # W3C Trace Context, section 3.2

#: The SDK's types of objects (`SpanObjectTypeV3`). It is imported where a span of a caller's own is named: it takes a
#: third of a second, and few callers name one.
_KINDS = {2: "project_logs", 1: "experiment", 3: "playground_logs"}


def read_parent(headers: Headers) -> tuple[Parent | None, str | None]:
    """Read `x-bt-parent`, else `traceparent` with a `braintrust.parent` in its `baggage`.

    `x-bt-parent` is what the SDK's `span.export()` gives, or `project_id:…`, `project_name:…`, `experiment_id:…`.
    A `traceparent` alone (every OpenTelemetry client sends one) names a span that Braintrust does not know.

    Returns:
        The parent, or None; and why one that was sent is ignored, or None.
    """
    if (named := headers.get("x-bt-parent")) is not None:
        parent = _named(named.strip())
        return parent, None if parent else "x-bt-parent cannot be read"
    traced = headers.get("traceparent")
    place = _baggage(headers.get("baggage") or "")
    if traced is None or place is None:
        return None, None
    match = _TRACEPARENT.fullmatch(traced.strip())
    parent = _named(place)
    if match is None or parent is None or set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None, "traceparent or its baggage cannot be read"
    return Parent(
        object_type=parent.object_type,
        object_id=parent.object_id,
        object_name=parent.object_name,
        span_id=match[2],
        root_span_id=match[1],
    ), None


def read_traceparent(headers: Headers) -> str | None:
    """Read the span that an OpenTelemetry client says it is in; None for none, and for one that cannot be read."""
    traced = (headers.get("traceparent") or "").strip()
    match = _TRACEPARENT.fullmatch(traced)
    return traced if match is not None and set(match[1]) != {"0"} and set(match[2]) != {"0"} else None


def _baggage(header: str) -> str | None:
    for member in header.split(","):
        name, _, value = member.partition(";")[0].partition("=")
        if name.strip() == "braintrust.parent":
            return unquote(value.strip())
    return None


def _named(text: str) -> Parent | None:
    if not text or len(text) > _LONGEST or not text.isprintable():
        return None
    kind, colon, value = text.partition(":")
    if colon and value and len(value) <= 256:
        if kind == "project_id":
            return Parent(object_id=value)
        if kind == "project_name":
            return Parent(object_name=value)
        if kind == "experiment_id":
            return Parent("experiment", object_id=value)
        return None
    return _exported(text)


def _exported(slug: str) -> Parent | None:
    from braintrust.span_identifier_v4 import SpanComponentsV4  # noqa: PLC0415  # see _KINDS

    try:
        span = SpanComponentsV4.from_str(slug)
    except Exception:  # noqa: BLE001 - the SDK raises whatever its decoding meets in a stranger's bytes
        return None
    looked_up = span.compute_object_metadata_args
    if not isinstance(looked_up, dict):
        looked_up = {}
    named, object_id = looked_up.get("project_name"), span.object_id or looked_up.get("project_id")
    texts = (object_id, named, span.row_id, span.span_id, span.root_span_id)
    if any(text is not None and (not isinstance(text, str) or len(text) > 256) for text in texts):
        return None
    if not object_id and not named:
        return None
    if not all(part is None or _SPAN_ID.fullmatch(part) for part in (span.span_id, span.root_span_id)):
        return None
    return Parent(
        object_type=_KINDS[span.object_type.value],
        object_id=object_id,
        object_name=None if object_id else named,
        row_id=span.row_id,
        span_id=span.span_id,
        root_span_id=span.root_span_id,
        propagated=span.propagated_event if isinstance(span.propagated_event, dict) else None,
    )


def export_slug(parent: Parent | None, project: str, row_id: str, span_id: str, root_span_id: str) -> str:
    """Name a span of ours so that the SDK's `start_span(parent=…)` hangs spans under it."""
    if parent is None:
        # what the SDK would write (`SpanComponentsV4.to_str`), at a tenth of its time
        facts = {"compute_object_metadata_args": {"project_name": project}, "row_id": row_id}
        ids = b"\x03%s\x04%s" % (bytes.fromhex(span_id), bytes.fromhex(root_span_id))
        return base64.b64encode(b"\x04\x02\x02%s%s" % (ids, _WRITER.encode(facts).encode())).decode()
    from braintrust.span_identifier_v4 import SpanComponentsV4, SpanObjectTypeV3  # noqa: PLC0415  # see _KINDS

    place: dict[str, object] = {"object_type": SpanObjectTypeV3.PROJECT_LOGS}
    if parent is not None and parent.object_id is not None:
        kinds = {name: kind for kind, name in _KINDS.items()}
        place = {"object_type": SpanObjectTypeV3(kinds[parent.object_type]), "object_id": parent.object_id}
    else:
        name = parent.object_name if parent is not None and parent.object_name else project
        place["compute_object_metadata_args"] = {"project_name": name}
    span = SpanComponentsV4(**place, row_id=row_id, span_id=span_id, root_span_id=root_span_id)
    return str(span.to_str())
