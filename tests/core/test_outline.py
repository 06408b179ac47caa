"""YAML as a tree that knows where each value stands."""

from __future__ import annotations

import time

import pytest

from gateway.core.outline import Node, Unreadable, outline


def unreadable(text: str) -> tuple[int, int, str]:
    with pytest.raises(Unreadable) as caught:
        outline(text)
    return caught.value.line, caught.value.column, str(caught.value)


def plain(node: Node) -> object:
    """The tree without its places."""
    if node.kind == "list":
        return [plain(item) for item in node.items]
    return {key.text: plain(value) for key, value in node.entries} if node.kind == "map" else node.text


def test_values_are_texts_lists_and_maps_as_they_are_written() -> None:
    text = "a: [1, 2024-10-21, 'x']\nb:\n  c: |\n    two\n    lines\n  d: {e: true}\n"
    assert plain(outline(text)) == {"a": ["1", "2024-10-21", "x"], "b": {"c": "two\nlines\n", "d": {"e": "true"}}}


def test_each_value_knows_its_line_and_column() -> None:
    root = outline("é: 1\nb:\n  - c\n  - {d: e}\n")
    places = {path: (node.line, node.column) for path, node in root.walk()}
    assert places == {"": (1, 1), "'\\xe9'": (1, 4), "b": (3, 3), "b[0]": (3, 5), "b[1]": (4, 5), "b[1].d": (4, 9)}


def test_only_a_bare_word_is_a_flag_or_nothing() -> None:
    root = outline("[true, No, 'true', ~, x]")
    assert [item.flag for item in root.items] == [True, False, None, None, None]
    assert [item.nothing for item in outline("[~, '', null, 'null', x]").items] == [True, False, True, False, False]


def test_a_key_that_is_given_again_is_noted_and_the_first_stands() -> None:
    root = outline("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert plain(root) == {"a": "1", "b": {"c": "1"}}
    assert [(path, key.line, key.column) for path, node in root.walk() for key in node.repeated] == [
        ("", 3, 1),
        ("b", 2, 11),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("a: &x 1\nb: *x", 2, 4, "aliases (*name) are not read"),
        ("a: !!python/object:os.system x", 1, 4, "tags (!name) are not read"),
        ("!!map {a: 1}", 1, 1, "tags (!name) are not read"),
        ("a\n---\nb", 3, 1, "a second document begins here"),
        ("? [a]\n: b", 1, 3, "a key must be a text"),
        ("a: [1,\n", 2, 1, "no YAML"),
        ("a: \tb: c", 1, 6, "no YAML"),
        ("ab\n c\x00", 2, 3, "a character that YAML does not allow"),
        ("ab\n\ud800", 2, 1, "this is no UTF-8"),
        ("[" * 21, 1, 21, "nested deeper than 20 levels"),
    ],
)
def test_what_is_not_read_is_said_with_its_place(text: str, line: int, column: int, what: str) -> None:
    found = unreadable(text)
    assert found[:2] == (line, column), found
    assert what in found[2]


def test_a_bomb_takes_no_time() -> None:
    layers = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    began_s = time.monotonic()
    for text in ("\n".join(layers), "[" * 500_000, "{a: " * 100_000):
        unreadable(text)
    assert time.monotonic() - began_s < 5


def test_an_empty_text_is_nothing() -> None:
    assert outline("").nothing
    assert outline("# a comment\n").nothing
