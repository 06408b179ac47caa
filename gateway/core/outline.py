"""YAML as a tree that knows where each value stands, with nothing in it that could hurt.

Read from the parser's events: no value is ever built by a tag, and nothing is expanded. YAML 1.1, as LiteLLM reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

#: Deeper than any routes file; a parser's time grows with the square of the depth.
_DEEPEST = 20

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("", "~", "null", "Null", "NULL")

# the faster one where libyaml is built in
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(ValueError):
    """A text that is no such tree. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass
class Node:
    """One value.

    Attributes:
        kind: `text`, `list` or `map`.
        line, column: where it begins, counted from 1.
        text: of a text.
        quoted: the text stands in quotes or in a block, so it is never a flag and never nothing.
        items: of a list.
        entries: of a map, each key with its value, in order.
        repeated: keys of a map that were given before; only the first stands in `entries`.
    """

    kind: str
    line: int
    column: int
    text: str = ""
    quoted: bool = False
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    repeated: list[Node] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether it is YAML's null."""
        return self.kind == "text" and not self.quoted and self.text in _NOTHING

    @property
    def flag(self) -> bool | None:
        """True or false; None where it is neither."""
        return None if self.quoted or self.kind != "text" else _FLAGS.get(self.text.lower())

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """It, and all that is in it, each with the path that leads there (`a.b[0]`)."""
        waiting = [(path, self)]
        while waiting:
            path, node = waiting.pop()
            yield path, node
            waiting += [(f"{path}[{number}]", item) for number, item in enumerate(node.items)]
            waiting += [(joined(path, key), value) for key, value in node.entries]


def joined(path: str, key: Node) -> str:
    """The path of a key in the map at `path`. What a stranger chose as a key may be long, or hold anything."""
    name = key.text if re.fullmatch(r"[\w.-]{1,64}", key.text, re.ASCII) else ascii(key.text[:64])
    return f"{path}.{name}" if path else name


def outline(text: str) -> Node:
    """Read one YAML document.

    Raises:
        Unreadable: it is no YAML, or has what is not read here: tags, aliases, several documents, keys that are no
            text, more than `_DEEPEST` levels.
    """
    if (at := next((i for i, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)) is not None:
        before = text[:at]
        raise Unreadable(before.count("\n") + 1, at - before.rfind("\n"), "this is no UTF-8")
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        before = text[: error.position if isinstance(error.position, int) else 0]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Unreadable(line, column, "a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Unreadable(line, column, f"no YAML: {error.problem or error.context}") from None
    return builder.root or Node("text", 1, 1)


class _Builder:
    """Puts the events together."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._seen: list[set[str]] = []

    def take(self, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        match event:
            case yaml.AliasEvent():
                raise Unreadable(line, column, "aliases (*name) are not read: write the value again")
            case yaml.ScalarEvent() | yaml.CollectionStartEvent() if event.tag is not None:
                raise Unreadable(line, column, "tags (!name) are not read: write the value as it is")
            case yaml.ScalarEvent():
                quoted = not event.implicit[0]
                self._add(Node("text", line, column, event.value, quoted))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self._open) >= _DEEPEST:
                    raise Unreadable(line, column, f"this is nested deeper than {_DEEPEST} levels")
                node = Node("list" if isinstance(event, yaml.SequenceStartEvent) else "map", line, column)
                self._add(node)
                self._open.append(node)
                self._keys.append(None)
                self._seen.append(set())
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
                self._keys.pop()
                self._seen.pop()

    def _add(self, node: Node) -> None:
        if not self._open:
            if self.root is not None:
                raise Unreadable(node.line, node.column, "a second document begins here; one is read")
            self.root = node
        elif self._open[-1].kind == "list":
            self._open[-1].items.append(node)
        elif (key := self._keys[-1]) is not None:
            self._keys[-1] = None
            if key.text in self._seen[-1]:
                self._open[-1].repeated.append(key)
            else:
                self._seen[-1].add(key.text)
                self._open[-1].entries.append((key, node))
        elif node.kind != "text":
            raise Unreadable(node.line, node.column, "a key must be a text")
        else:
            self._keys[-1] = node
