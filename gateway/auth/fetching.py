"""What an issuer of tokens is asked: one JSON object at a time, bounded in time and size, and from there alone.

Only the search for its address is bounded by the system alone.

No redirect is followed and there is no proxy on the way: whoever answers decides whom the gateway believes.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_LARGEST_BYTES = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_safe(url: str) -> bool:
    """Whether an issuer may be asked there: by https, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.username is not None or not (url.isascii() and url.isprintable()) or " " in url:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))


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
    parts = urlsplit(url)
    over = threading.Event()
    sock = _connected(parts)

    def give_up() -> None:
        over.set()
        try:
            # the plain one, since TLS would wait for the other end
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            log.debug("the connection to an issuer is gone already")

    # the socket's own bound is for each read, and an answer may come byte by byte
    timer = threading.Timer(_TIMEOUT_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection = http.client.HTTPConnection("issuer")  # the name means nothing: it is connected already
        connection.sock = sock
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        told = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
        connection.request(method, path, body, {**(headers or {}), **told, "Host": parts.netloc})
        with connection.getresponse() as answer:
            raw = answer.read(_LARGEST_BYTES + 1)
            status = answer.status
    except (OSError, http.client.HTTPException):
        if over.is_set():
            raise ValueError("the answer is too slow") from None
        raise
    finally:
        timer.cancel()
        sock.close()
    if over.is_set():
        raise ValueError("the answer is too slow")
    if len(raw) > _LARGEST_BYTES:
        raise ValueError("the answer is too large")
    return status, _object(raw)


def _connected(parts: SplitResult) -> socket.socket:
    """Connect; over TLS the handshake is still to come."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = socket.create_connection((parts.hostname or "", port), _TIMEOUT_S)
    if parts.scheme == "http":
        return sock
    try:
        return ssl.create_default_context().wrap_socket(
            sock, server_hostname=parts.hostname, do_handshake_on_connect=False
        )
    except (OSError, ValueError):
        sock.close()
        raise


def _object(raw: bytes) -> JSON | None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
