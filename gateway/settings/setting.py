"""What is known of one variable: a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One variable.

    Attributes:
        attribute: its name in `Settings`.
        kind: which of `readers.READERS` reads it.
        default: as one would write it; None where leaving it out means something of its own.
        minimum: the smallest number allowed; None means anything above 0.
    """

    env: str
    attribute: str
    kind: str
    default: str | None
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False


def seconds(env: str, attribute: str, default: str, help: str) -> Setting:
    """The row of a time: seconds above 0, a day at most."""
    return Setting(env, attribute, "number", default, help, unit="seconds", maximum=86_400)


def bytes_of(megabytes: float) -> int:
    """How many bytes a size is, which the rows give in MB of 1,048,576 bytes; a part of one is left out."""
    return int(megabytes * (1 << 20))
