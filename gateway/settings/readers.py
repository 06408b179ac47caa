"""How the text of a variable becomes a value: a reader for each kind of row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gateway.core.providers import PROVIDERS, SAME_WIRE
from gateway.core.webhooks import signing_key
from gateway.secret import Secret
from gateway.settings.addresses import address_of, guarded_address, postgres_address, redis_address
from gateway.settings.credentials import fits_a_header
from gateway.settings.setting import Setting
from gateway.settings.variables import unquoted

#: Signatures that are made with a private key (RFC 7518, section 3.1; RFC 8037): who can check one cannot make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_SHORTEST_PEPPER = 32


def _number(row: Setting, text: str) -> float:
    span = f"at least {row.minimum}" if row.minimum is not None else "above 0"
    span += f" and at most {row.maximum}" if row.maximum is not None else ""
    value = float(text) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else math.nan
    low_enough = row.maximum is None or value <= row.maximum
    if not ((value > 0 if row.minimum is None else value >= row.minimum) and low_enough):
        raise ValueError(f"must be a number {span}, not {text[:40]!r}")
    return value


def _integer(row: Setting, text: str) -> int:
    value = _number(row, text)
    if not value.is_integer():
        raise ValueError(f"must be a whole number, not {text[:40]!r}")
    return int(value)


def _choice(row: Setting, text: str) -> str:
    if text.lower() not in row.choices:
        raise ValueError(f"must be one of {', '.join(row.choices)}, not {text[:40]!r}")
    return text.lower()


def _path(_row: Setting, text: str) -> Path:
    if "\0" in text:
        raise ValueError("is not a path")
    return Path(text)


def _secret(_row: Setting, text: str) -> Secret:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("holds a blank or another character that an HTTP header cannot carry")
    return Secret(text)


def _secrets(row: Setting, text: str) -> tuple[Secret, ...]:
    tokens = [token for part in text.split(",") if (token := unquoted(part))]
    if not tokens:
        raise ValueError("is set but holds no token: set it to one or more tokens, separated by commas, or remove it")
    return tuple(dict.fromkeys(_secret(row, token) for token in tokens))


def _pepper(row: Setting, text: str) -> Secret:
    if len(text) < _SHORTEST_PEPPER:
        raise ValueError(f"is too short: it can be guessed below {_SHORTEST_PEPPER} characters")
    return _secret(row, text)


def _webhook(_row: Setting, text: str) -> Secret:
    signing_key(text)
    return Secret(text)


def _names(_row: Setting, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := unquoted(part))))


def _pairs(text: str) -> dict[str, str]:
    """Read `name=value,name=value`, as OpenTelemetry's variables have it (W3C Baggage without properties)."""
    found = {}
    for member in filter(None, (part.strip() for part in unquoted(text).split(","))):
        name, equals, value = member.partition("=")
        if not equals or not name.strip():
            raise ValueError("must be name=value, separated by commas")
        found[name.strip()] = unquote(value.strip())
    return found


def _headers(_row: Setting, text: str) -> dict[str, Secret]:
    pairs = _pairs(text)
    for name, value in pairs.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not fits_a_header(value):
            raise ValueError("holds what an HTTP header cannot carry")
    return {name: Secret(value) for name, value in pairs.items()}


def _algorithms(row: Setting, text: str) -> tuple[str, ...]:
    for name in (names := _names(row, text)):
        if name not in ALGORITHMS:
            raise ValueError(f"names {name[:40]!r}; it can have {', '.join(ALGORITHMS)}")
    return names


def _relayed(_row: Setting, text: str) -> frozenset[str]:
    named = {name.lower() for part in text.split(",") if (name := unquoted(part))}
    if named == {"all"}:
        return SAME_WIRE
    for name in sorted(named - SAME_WIRE):
        known = "does not take OpenAI's wire as it is" if name in PROVIDERS else "is no provider"
        every = ", ".join(sorted(SAME_WIRE))
        raise ValueError(f"names {name[:40]!r}, which {known}; it can be all, or some of {every}")
    return frozenset(named)


def _visible(_row: Setting, text: str) -> str:
    """Read what may stand in the requests of OAuth 2.0 (VSCHAR; RFC 6749, appendix A)."""
    if not fits_a_header(text):
        raise ValueError("holds a character that OAuth 2.0 does not allow")
    return text


def _scope(row: Setting, text: str) -> str:
    names = _visible(row, text).split()
    if "openid" not in names:
        raise ValueError("must have openid among its words, else there is no ID token")
    return " ".join(dict.fromkeys(names))


def _emails(row: Setting, text: str) -> tuple[str, ...]:
    """Read addresses, and domains with an `@` in front, in small letters."""
    for name in (names := tuple(name.lower() for name in _names(row, text))):
        if not re.fullmatch(r"[!-?A-~]*@[a-z0-9.-]+", name):
            raise ValueError(f"must hold ann@example.com or @example.com, not {name[:80]!r}")
    return tuple(dict.fromkeys(names))


def _origins(_row: Setting, text: str) -> tuple[str, ...]:
    origins = [origin.rstrip("/").lower() for part in text.split(",") if (origin := unquoted(part))]
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", origin):
            raise ValueError(f"must hold origins like https://app.example.com or *, not {origin[:80]!r}")
    return tuple(dict.fromkeys(origins))


#: What reads each kind of row: the value of a text that is not blank. Raises ValueError, whose text follows the name.
READERS: Mapping[str, Callable[[Setting, str], Any]] = {
    "text": lambda _row, text: text,
    "url": lambda _row, text: address_of(text),
    "number": _number,
    "integer": _integer,
    "choice": _choice,
    "path": _path,
    "secret": _secret,
    "secrets": _secrets,
    "yaml": lambda _row, text: Secret(text),  # it may hold keys
    "origins": _origins,
    "pepper": _pepper,
    "webhook": _webhook,
    "names": _names,
    "headers": _headers,
    "attributes": lambda _row, text: _pairs(text),
    "issuer": lambda _row, text: guarded_address(text),  # with its slash at the end, where it has one
    "keyset": lambda _row, text: guarded_address(text),
    "algorithms": _algorithms,
    "visible": _visible,
    "client_secret": lambda row, text: Secret(_visible(row, text)),
    "scope": _scope,
    "emails": _emails,
    "relayed": _relayed,
    "postgres": lambda _row, text: postgres_address(text),
    "redis": lambda _row, text: redis_address(text),
}
