"""What every part of a routes file is read with: its faults and warnings, each with its place, and its values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping

from gateway.core.foreignkeys import Verdict
from gateway.core.outline import Node, joined
from gateway.core.routekeys import KINDS, Key
from gateway.core.spelling import nearest
from gateway.secret import Secret
from gateway.settings import Settings, fits_a_header

#: More of them are only counted.
MOST_FAULTS = 100

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_OS_ENVIRON = "os.environ/"
_LONGEST_NAME = 256


class Reading:
    """One file, as it is read: goes on after a fault, to name them all.

    No fault and no warning repeats a value: it may be a key.

    Attributes:
        settings: of the process; its variables are what the file may name.
        secrets: the keys of the file, and what it took from variables to make them.
        key_variables: the variables that those were taken from.
    """

    def __init__(self, source: str, settings: Settings) -> None:
        self.settings = settings
        self.secrets: list[Secret] = []
        self.key_variables: set[str] = set()
        self._source = source
        self._faults: list[tuple[int, int, str]] = []
        self._warnings: list[tuple[int, int, str]] = []

    @property
    def faulty(self) -> int:
        """How many faults were found so far."""
        return len(self._faults)

    def faults(self) -> list[str]:
        """Every fault, as they stand in the file."""
        return self._in_order(self._faults)

    def warnings(self) -> list[str]:
        """Every warning, likewise."""
        return self._in_order(self._warnings)

    def _in_order(self, found: list[tuple[int, int, str]]) -> list[str]:
        return [f"{self._source}:{line}:{column}: {what}" for line, column, what in sorted(found)]

    def fault(self, node: Node, path: str, what: str) -> None:
        """Note that the file cannot be used."""
        self._faults.append((node.line, node.column, f"{path}: {what}" if path else what))

    def warn(self, node: Node, path: str, what: str) -> None:
        """Note what the operator should know and need not mend."""
        self._warnings.append((node.line, node.column, f"{path}: {what}"))

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that is probably meant."""
        # nobody reads the faults beyond, and to find what is meant takes time
        return nearest(name, known) if self.faulty < MOST_FAULTS else None

    def keys(
        self, node: Node, path: str, keys: tuple[Key, ...], verdict: Callable[[Node, Node], Verdict | None]
    ) -> dict[str, Node]:
        """The values of a map that are read and of the right kind; the other keys are judged.

        Args:
            node: the map.
            path: where it stands.
            keys: those that are read.
            verdict: judges a key that is not, by itself and its value; None for one that nobody knows.
        """
        known = {key.name: key for key in keys}
        found: dict[str, Node] = {}
        for name, value in node.entries:
            where = joined(path, name)
            if (key := known.get(name.text)) is None:
                self.judge(name, where, verdict(name, value), known)
            elif value.nothing and not key.required:
                continue  # a key without a value, as a commented-out one leaves it
            elif (wrong := _wrong(key, value)) is not None:
                self.fault(value, where, wrong)
            else:
                found[name.text] = value
        for key in keys:
            if key.required and all(name.text != key.name for name, _ in node.entries):
                self.fault(node, path, f"{key.name} is missing")
        return found

    def judge(self, key: Node, path: str, verdict: Verdict | None, known: Mapping[str, Key] | None = None) -> None:
        """Say what becomes of a key that is not read; where nobody knows it, which is probably meant."""
        if verdict is None:
            meant = self.nearest(key.text, known or ())
            self.fault(key, path, f"unknown key; {meant} is meant?" if meant else "unknown key")
        elif not verdict.harmless:
            self.fault(key, path, f"not supported by this release: {verdict.reason}")
        elif verdict.reason:
            self.warn(key, path, f"has no effect: {verdict.reason}")

    def text(self, node: Node | None, path: str, names: list[str] | None = None) -> str | None:
        """A text with its variables in place; their names are added to `names`. None where it cannot be had."""
        if node is None:
            return None
        text, missing = node.text, []

        def value_of(name: str) -> str:
            if names is not None:
                names.append(name)
            value = self.settings.variables.get(name)
            if not value:
                missing.append(name)
            return value or ""

        if text.startswith(_OS_ENVIRON):
            text = value_of(text.removeprefix(_OS_ENVIRON))
        elif "${" in _REFERENCE.sub("", text):
            self.fault(node, path, "a variable is written ${NAME}, with nothing else in the braces")
            return None
        else:
            text = _REFERENCE.sub(lambda match: value_of(match[1]), text)
        for name in dict.fromkeys(missing):
            self.fault(node, path, f"the variable {name[:80]!r} is not set, or is blank")
        if not missing and not text.strip():
            self.fault(node, path, "must not be blank")
            return None
        return None if missing else text

    def number(
        self,
        node: Node | None,
        path: str,
        *,
        least: float = 0,
        most: float = math.inf,
        above: bool = False,
        whole: bool = False,
    ) -> float | None:
        """A number within bounds; `least` itself only where it need not be `above` that."""
        text = self.text(node, path)
        if node is None or text is None:
            return None
        try:
            value = float(text)  # takes `20_000` too, as YAML 1.1 does
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value) or (above and value == least) or (whole and value % 1):
            bounds = f"{'above' if above else 'from'} {least:g} {'on' if most == math.inf else f'to {most:g}'}"
            self.fault(node, path, f"must be a {'whole ' if whole else ''}number {bounds}")
            return None
        return value

    def whole(self, node: Node | None, path: str, *, least: int = 0, most: float = math.inf) -> int | None:
        """A whole number within bounds."""
        value = self.number(node, path, least=least, most=most, whole=True)
        return None if value is None else int(value)

    def names(self, node: Node | None, path: str) -> tuple[str, ...]:
        """The texts of a list."""
        found = [self.text(item, f"{path}[{number}]") for number, item in enumerate(node.items if node else ())]
        return tuple(text for text in found if text is not None)

    def key(self, node: Node | None, path: str) -> Secret | None:
        """A credential: what it is made of is hidden from now on."""
        names: list[str] = []
        text = self.text(node, path, names)
        if node is None or text is None:
            return None
        if not fits_a_header(text):
            self.fault(node, path, "holds a character that an HTTP header cannot carry")
        elif not names:
            self.warn(node, path, "a key stands in the file itself: better os.environ/NAME, and the key in .env")
        self.key_variables.update(names)
        parts = [value for name in names if (value := self.settings.variables.get(name))]
        self.secrets += [Secret(part) for part in dict.fromkeys((text, *parts))]
        return Secret(text)


def is_reference(node: Node) -> bool:
    """Whether a value is a variable's and holds nothing of its own."""
    return node.kind == "text" and (
        node.text.startswith(_OS_ENVIRON) or _REFERENCE.fullmatch(node.text.strip()) is not None
    )


def is_name(text: str) -> bool:
    """Whether callers could send it as a model's name."""
    return text == text.strip() and text.isprintable() and 0 < len(text) <= _LONGEST_NAME


def _wrong(key: Key, node: Node) -> str | None:
    """What is wrong with the kind of a value."""
    texts = [item for item in node.items if item.kind == "text" and not item.nothing]
    match key.kind:
        case "flag":
            wrong = None if node.flag is not None else "must be true or false"
        case "text" | "number":
            wrong = None if node.kind == "text" and not node.nothing else f"must be a {key.kind}"
        case "names":
            wrong = None if node.kind == "list" and len(texts) == len(node.items) else "must be a list of texts"
        case "keys":
            several = node.kind == "list" and texts and len(texts) == len(node.items)
            wrong = (
                None if several or (node.kind == "text" and not node.nothing) else "must be a key, or a list of keys"
            )
        case "fallbacks":
            wrong = None if node.kind == "list" else "must be a list of maps, each from a name to a list of names"
        case kind:
            shape = "map" if KINDS[kind]["type"] == "object" else "list"
            wrong = None if node.kind == shape else f"must be a {shape}"
    if wrong is None and node.text in key.instead:
        return f"not supported by this release: {node.text}; what is nearest to it is {key.instead[node.text]}"
    if wrong is None and key.choices and node.text not in key.choices:
        wrong = f"must be one of {', '.join(key.choices)}"
    return wrong
