"""Values of a caller's JSON, each of the kind that it must be; a refusal says where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidRequest

JSON = dict[str, Any]


def text(value: object, where: str) -> str:
    """Return a string.

    Raises:
        InvalidRequest: it is none; `where` becomes its `param`.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} must be a string", param=where)
    return value


def full(value: object, where: str) -> str:
    """Return a string that is not empty, such as a name or an id.

    Raises:
        InvalidRequest: it is none; `where` becomes its `param`.
    """
    given = text(value, where)
    if not given:
        raise InvalidRequest(f"{where} must not be empty", param=where)
    return given


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """Return an object.

    Raises:
        InvalidRequest: it is none; `where` becomes its `param`.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{where} must be an object", param=where)
    return value


def array(value: object, where: str) -> list[Any]:
    """Return an array.

    Raises:
        InvalidRequest: it is none; `where` becomes its `param`.
    """
    if not isinstance(value, list):
        raise InvalidRequest(f"{where} must be an array", param=where)
    return value


def unsupported(message: str, where: str) -> InvalidRequest:
    """Make the refusal of what cannot be carried, where leaving it out would make the answer a lie."""
    return InvalidRequest(message, param=where, code="unsupported_parameter")
