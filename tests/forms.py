"""Forms as clients write them (RFC 7578), and as they were received."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from werkzeug.formparser import parse_form_data

BOUNDARY = "a-boundary-of-the-tests"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

#: Name, content, and file name and type where it is a file.
Part = tuple[str, bytes] | tuple[str, bytes, str, str]


def part(name: str, content: bytes, filename: str | None = None, media_type: str = "audio/wav") -> bytes:
    """One part, with the boundary in front of it."""
    more = "" if filename is None else f'; filename="{filename}"'
    typed = "" if filename is None else f"\r\nContent-Type: {media_type}"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}{typed}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: Iterable[Any]) -> bytes:
    """A whole form of parts: each a name and a content, and a file name where it is a file."""
    return b"".join(part(*one) for one in parts) + f"--{BOUNDARY}--\r\n".encode()


def received(raw: bytes, content_type: str = CONTENT_TYPE) -> tuple[dict[str, list[str]], dict[str, list[bytes]]]:
    """Read a form as a provider does: the texts, and the files, each by name."""
    import io

    environ = {
        "wsgi.input": io.BytesIO(raw),
        "CONTENT_LENGTH": str(len(raw)),
        "CONTENT_TYPE": content_type,
        "REQUEST_METHOD": "POST",
    }
    _, texts, files = parse_form_data(environ, silent=False)
    read = {name: [one.read() for one in files.getlist(name)] for name in files}
    for name in files:
        for one in files.getlist(name):
            one.close()
    return {name: texts.getlist(name) for name in texts}, read
