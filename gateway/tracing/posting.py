"""How rows are posted to a place, and what its answers mean; for every destination that speaks HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from gateway.secret import Secret

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
#: Of an answer: to rows that were posted their ids, some 40 KB at most.
_MOST_ANSWER_BYTES = 1 << 20
_ANSWER_S = 30.0


def content_of(answer: httpx.Response) -> bytes | None:
    """Read the answer to its end; None for one that is too long or takes too long."""
    end_s = time.monotonic() + _ANSWER_S
    content = b""
    for chunk in answer.iter_raw():
        content += chunk
        if len(content) > _MOST_ANSWER_BYTES or time.monotonic() > end_s:
            return None
    return content


def is_page(answer: httpx.Response, content: bytes) -> bool:
    """Whether an answer is a web page: of a proxy that wants a login, say."""
    return "html" in answer.headers.get("content-type", "").lower() or content.lstrip()[:1] == b"<"


def where(url: str) -> str:
    """The path of an address, for messages."""
    return line("/" + url.split("/", 3)[-1])


def words(content: bytes, *secrets: Secret) -> str:
    """The beginning of what a refusal says, on one line. Some quote the request, key and all."""
    text = content[:4096].decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret.reveal(), "[key]")
    return line(text)


def line(text: str) -> str:
    """The beginning of a text, on one line and printable."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:300]).split())[:200]


def retry_after_s(header: str | None) -> float | None:
    """Seconds, from seconds or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        if header.strip().isdigit():
            return float(header)
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
