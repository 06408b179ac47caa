"""Reading a caller's Messages request: what has a wrong type is told with its path, what stays behind is noted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.fields import Field, fault_of
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: Of a name that the caller made up; it stands in a header.
_NAME_CHARS = 64


def checked(value: Any, at: str, *types: type) -> Any:
    """Return a value that has to be there.

    Args:
        value: a JSON value.
        at: the path to it (`messages.2.content.0.text`).
        types: of JSON, as `endpoints.Field` has them.

    Raises:
        InvalidRequest: it is missing or of another type; `param` is the path.
    """
    fault = fault_of(at, value, Field(types, required=True))
    if fault is not None:
        raise InvalidRequest(fault, param=at)
    return value


class Reading:
    """One request being read.

    Args:
        beyond: fields beyond OpenAI's reference that the reader of the chat body takes (`asked.BEYOND`).
    """

    def __init__(self, beyond: Collection[str] = ()) -> None:
        self.beyond = frozenset(beyond)
        self._dropped: set[str] = set()

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names of all that was left behind, sorted."""
        return tuple(sorted(self._dropped))

    def drop(self, *path: str) -> None:
        """Note that something cannot be carried (`tools`, `web_search`)."""
        self._dropped.add(".".join(name[:_NAME_CHARS] for name in path))

    def drop_rest(self, value: Mapping[str, Any], known: Collection[str], *path: str) -> None:
        """Note the fields of an object that nobody reads. Null, false and empty ones ask for nothing."""
        for name, field in value.items():
            if field and name not in known:
                self.drop(*path, name)

    def marked(self, block: Mapping[str, Any], part: JSON) -> JSON:
        """Give a part the `cache_control` of the block that it is made of, for a reader that takes it."""
        if (mark := block.get("cache_control")) is not None:
            if "cache_control" not in self.beyond:
                self.drop("cache_control")
            else:
                part["cache_control"] = mark
        return part
