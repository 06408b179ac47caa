"""What a span is known by."""

from __future__ import annotations

import os
from typing import NamedTuple

from gateway.core.calls import Parent


class Ids(NamedTuple):
    """A span's place in its trace. `span_id` has 16 hex digits and `root_span_id` 32, as W3C trace context has them."""

    row_id: str
    span_id: str
    root_span_id: str
    parent_span_id: str | None

    @classmethod
    def new(cls, parent: Parent | None) -> Ids:
        """Ids of a root, or of a child of the caller's own span."""
        chance = os.urandom(40)
        if parent is None or parent.span_id is None or parent.root_span_id is None:
            return cls(_uuid(chance), chance[16:24].hex(), chance[24:].hex(), None)
        return cls(_uuid(chance), chance[16:24].hex(), parent.root_span_id, parent.span_id)

    def child(self) -> Ids:
        """Ids of a span under this one."""
        chance = os.urandom(24)
        return Ids(_uuid(chance), chance[16:24].hex(), self.root_span_id, self.span_id)


def _uuid(chance: bytes) -> str:
    """A random UUID (RFC 9562, section 5.4) of 16 bytes of chance."""
    text = chance[:16].hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[chance[8] & 3]}{text[17:20]}-{text[20:32]}"
