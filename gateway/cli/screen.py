"""What may get out to a terminal. Much of what the commands print was written by strangers."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    r"""Write what a terminal would obey, or not show, as `\x1b` and the like; `keep` lists what may stay."""
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape", "replace").decode()
        for sign in text
    )
