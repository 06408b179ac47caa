"""What one field of a JSON body may look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest

#: Of what an operator calls something.
LONGEST_NAME = 256


@dataclass(frozen=True)
class Field:
    """What a known parameter may look like. Every bound that is not here is the provider's to judge.

    `types` are JSON types (`bool` is no `int`, an `int` is a `float`); null is always accepted where the field is
    not `required`.
    """

    types: tuple[type, ...]
    required: bool = False
    minimum: int | None = None
    maximum: int | None = None
    non_empty: bool = False
    items: type | None = None


def fault_of(name: str, value: Any, field: Field) -> str | None:
    """Say what is wrong with one parameter, or None.

    Args:
        name: the parameter's name, for the sentence.
        value: a JSON value.
        field: its row.
    """
    if value is None:
        return f"{name} is required" if field.required else None
    if not _is_one_of(value, field.types):
        return f"{name} must be {_words(field.types)}"
    if field.non_empty and (not value or (isinstance(value, str) and not value.strip())):
        return f"{name} must not be empty"
    if field.items is not None and not all(_is_one_of(item, (field.items,)) for item in value):
        return f"every item of {name} must be {_words((field.items,))}"
    if field.minimum is not None and value < field.minimum:
        return f"{name} must be at least {field.minimum}"
    if field.maximum is not None and value > field.maximum:
        return f"{name} must be at most {field.maximum}"
    return None


def check_name(name: str) -> None:
    """Check what an operator calls something.

    Raises:
        InvalidRequest: it is empty, too long, or has blanks around it or a character that is none.
    """
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name.strip() != name:
        raise InvalidRequest(
            f"name has 1 to {LONGEST_NAME} printable characters, and no blank around them.", param="name"
        )


_WORDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    bytes: "a file",
}


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (isinstance(value, int) and float in types)


def _words(types: tuple[type, ...]) -> str:
    return " or ".join(_WORDS[kind] for kind in types)
