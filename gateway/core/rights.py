"""What a caller may do, and when one set of rights lies within another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from gateway.core.endpoints import ENDPOINTS, MODEL, MODELS
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: Call models, and list those that may be called.
CALL = "call"
#: Read `/metrics`, which counts everybody's calls.
METRICS = "metrics"
#: Manage keys, users and projects, and see everybody's traces.
ADMIN = "admin"
SCOPES = frozenset({CALL, METRICS, ADMIN})

EVERYTHING = ("*",)

#: Bounds of what a key may list, so that a check takes microseconds whatever was written there.
MOST_ENTRIES = 200
LONGEST_ENTRY = 256
MOST_STARS = 4

#: Each lists only what the caller may call, so whoever may call may ask.
_FOR_ALL = frozenset({MODELS.name, MODEL.name})
_OPERATIONS = frozenset(row.name for row in ENDPOINTS) - _FOR_ALL
_PARENT_KINDS = ("project_id:", "project_name:", "experiment_id:", "playground_id:")


@dataclass(frozen=True)
class Rights:
    """What a caller may do. A tuple holds names; `*` in one stands for any text, also for none.

    Attributes:
        scopes: of `SCOPES`.
        models: model names as callers write them, or `provider/model`.
        endpoints: names of operations (`core/endpoints.py`); one covers those below it, as `responses` covers
            `responses.retrieve`.
        parents: where its traces may hang: `project_name:…`, `project_id:…`, `experiment_id:…`, `playground_id:…`.
    """

    scopes: frozenset[str] = frozenset({CALL})
    models: tuple[str, ...] = EVERYTHING
    endpoints: tuple[str, ...] = EVERYTHING
    parents: tuple[str, ...] = ()

    def allows(self, scope: str) -> bool:
        """Whether a scope is among them."""
        return scope in self.scopes

    def allows_model(self, name: str) -> bool:
        """Whether a model may be called by that name."""
        whole, heads, others = self._sorted_models
        return name in whole or name.startswith(heads) or any(_fits(pieces, name) for pieces in others)

    def allows_endpoint(self, name: str) -> bool:
        """Whether an operation may be asked for."""
        return name in _FOR_ALL or any(_covers_endpoint(entry, name) for entry in self.endpoints)

    def allows_parent(self, place: str) -> bool:
        """Whether a trace may hang there; `place` is spelt as an entry of `parents`."""
        return any(matches(pattern, place) for pattern in self.parents)

    @cached_property
    def _sorted_models(self) -> tuple[frozenset[str], tuple[str, ...], tuple[list[str], ...]]:
        """The whole names among the models, how others begin, and the pieces of all other patterns.

        A list of models is thousands of names.
        """
        whole = frozenset(pattern for pattern in self.models if "*" not in pattern)
        heads = tuple(pattern[:-1] for pattern in self.models if pattern.find("*") == len(pattern) - 1 >= 0)
        others = (pattern.split("*") for pattern in self.models if pattern.find("*") not in (-1, len(pattern) - 1))
        return whole, heads, tuple(others)

    def within(self, other: Rights) -> bool:
        """Whether `other` allows all that these rights allow; False also where that cannot be told by its patterns."""
        return (
            self.scopes <= other.scopes
            # A star of `inner` can only be taken by a star of `outer`, which takes whatever it stands for as well.
            and all(any(matches(outer, inner) for outer in other.models) for inner in self.models)
            and all(any(_covers_endpoint(outer, inner) for outer in other.endpoints) for inner in self.endpoints)
            and all(any(matches(outer, inner) for outer in other.parents) for inner in self.parents)
        )

    def document(self) -> JSON:
        """These rights as JSON, which `read_rights` reads."""
        return {field.name: sorted(getattr(self, field.name)) for field in fields(self)}


#: Of the operator's own tokens, which no list limits.
UNLIMITED = Rights(frozenset({CALL, METRICS}), parents=EVERYTHING)
#: Of the admin token.
ALL = Rights(SCOPES, parents=EVERYTHING)


def kept_rights(document: Mapping[str, Any]) -> Rights:
    """Read rights that were checked when they were kept; what another release knows and this one does not is no fault.

    Args:
        document: what `Rights.document` returned.
    """
    lists = {name: tuple(document.get(name, ())) for name in ("models", "endpoints", "parents")}
    return Rights(frozenset(document.get("scopes", ())), **lists)


def read_rights(document: Mapping[str, Any], of: Rights | None = None) -> Rights:
    """Read rights that somebody wrote.

    Args:
        document: any of the four lists, as JSON.
        of: where lists come from that `document` leaves out; else the defaults of `Rights`.

    Raises:
        InvalidRequest: an unknown field, scope or operation, or a list that is none; names the field.
    """
    known = {field.name for field in fields(Rights)}
    for name in document:
        if name not in known:
            raise InvalidRequest(f"{name[:64]!r} is no right; there are {', '.join(sorted(known))}.", param="rights")
    read = {name: entries_of(name, entries) for name, entries in document.items()}
    if unknown := sorted(set(read.get("scopes", ())) - SCOPES):
        raise InvalidRequest(f"{unknown[0]!r} is no scope; there are {', '.join(sorted(SCOPES))}.", param="scopes")
    if unknown := sorted(set(read.get("endpoints", ())) - _OPERATIONS - set(EVERYTHING)):
        every = ", ".join(sorted(_OPERATIONS))
        raise InvalidRequest(f"{unknown[0]!r} is no operation; there are * and {every}.", param="endpoints")
    for place in read.get("parents", ()):
        if place not in EVERYTHING and not place.startswith(_PARENT_KINDS):
            raise InvalidRequest(f"A parent begins with one of {', '.join(_PARENT_KINDS)}.", param="parents")
    base = of or Rights()
    return Rights(
        scopes=frozenset(read.get("scopes", base.scopes)),
        models=read.get("models", base.models),
        endpoints=read.get("endpoints", base.endpoints),
        parents=read.get("parents", base.parents),
    )


def entries_of(name: str, entries: object) -> tuple[str, ...]:
    """Check a list of short texts, and return it without repetitions.

    Args:
        name: of the field, for the error.
        entries: what was sent.

    Raises:
        InvalidRequest: it is no list of at most `MOST_ENTRIES` printable texts of 1 to `LONGEST_ENTRY` characters, or
            one of them has too many stars.
    """
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise InvalidRequest(f"{name} must be a list of texts.", param=name)
    if len(entries) > MOST_ENTRIES:
        raise InvalidRequest(f"{name} may have {MOST_ENTRIES} entries at most.", param=name)
    for entry in entries:
        if not 0 < len(entry) <= LONGEST_ENTRY or not entry.isprintable() or entry.strip() != entry:
            raise InvalidRequest(
                f"Each entry of {name} has 1 to {LONGEST_ENTRY} printable characters, and no blank around them.",
                param=name,
            )
        if entry.count("*") > MOST_STARS:
            raise InvalidRequest(f"An entry of {name} may have {MOST_STARS} stars at most.", param=name)
    return tuple(dict.fromkeys(entries))


def matches(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern stands for. Linear in the text for each star: no regular expression.

    Args:
        pattern: `*` stands for any characters, also for none; every other character for itself, in its case.
        text: any text.
    """
    pieces = pattern.split("*")
    return pattern == text if len(pieces) == 1 else _fits(pieces, text)


def _fits(pieces: list[str], text: str) -> bool:
    """Whether a text has the two or more pieces between which stars stand."""
    head, tail = pieces[0], pieces[-1]
    if not text.startswith(head) or len(text) < len(head) + len(tail) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in pieces[1:-1]:  # the first place that fits leaves the most to the pieces after it
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _covers_endpoint(entry: str, name: str) -> bool:
    return entry == "*" or name == entry or name.startswith(entry + ".")
