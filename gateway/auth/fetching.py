"""What an issuer of tokens is asked: one JSON object at a time, bounded in time and size, and from there alone.

Only the search for its address is bounded by the system alone.

No redirect is followed and there is no proxy on the way: whoever answers decides whom the gateway believes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.core.addresses import is_guarded
from gateway.http_client import TooSlow, ask

JSON = dict[str, Any]

_TIMEOUT_S = 5.0
_LARGEST_BYTES = 1 << 20


def is_safe(url: str) -> bool:
    """Whether an issuer may be asked there: by https, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.username is not None or not (url.isascii() and url.isprintable()) or " " in url:
        return False
    return is_guarded(parts.scheme, host)


def configuration(issuer: str) -> JSON:
    """Fetch what an issuer says of itself (OpenID Connect Discovery 1.0, section 4).

    Raises:
        OSError, HTTPException, ValueError: as `fetched`, or it is of another issuer.
    """
    document = fetched(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if document.get("issuer") != issuer:
        raise ValueError("its configuration is of another issuer")
    return document


def fetched(url: str) -> JSON:
    """Fetch one JSON object.

    Args:
        url: as `is_safe` allows it.

    Raises:
        OSError: it cannot be reached.
        HTTPException: what it answers is no HTTP.
        ValueError: the answer is not 200, no JSON object, too large, or too slow; it says which.
    """
    status, document = _asked("GET", url)
    if status != 200:
        raise ValueError(f"the answer is {status}")
    if document is None:
        raise ValueError("the answer is no JSON object")
    return document


def posted(url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, JSON | None]:
    """Send a form, and return the status of the answer and its JSON object; None where it has none.

    Args:
        url: as `is_safe` allows it.
        form: the fields.
        headers: besides those that say what is sent.

    Raises:
        OSError: it cannot be reached.
        HTTPException: what it answers is no HTTP.
        ValueError: the answer is too large or too slow.
    """
    named = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    return _asked("POST", url, urlencode(form).encode(), named)


def _asked(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, JSON | None]:
    if not is_safe(url):
        raise ValueError("nothing is asked at such an address")
    told = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        answer = ask(*(method, url, body, {**(headers or {}), **told}), timeout_s=_TIMEOUT_S, most_bytes=_LARGEST_BYTES)
    except TooSlow:
        raise ValueError("the answer is too slow") from None
    return answer.status, _object(answer.body)


def _object(raw: bytes) -> JSON | None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
