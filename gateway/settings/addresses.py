"""Addresses: of providers, of issuers and of stores."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from gateway.core.addresses import is_guarded
from gateway.secret import Secret


def address_of(text: str) -> str:
    """Check an address and return it without a slash at the end.

    Raises:
        ValueError: says what is wrong, without repeating it, for it may hold a password.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if not host or re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError("is not an address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password")
    if "?" in text or "#" in text:
        raise ValueError("must have no query and no fragment")
    return text.rstrip("/")


def guarded_address(text: str) -> str:
    """Check an address that says whom to believe: nobody on the way may change its answer. It may have a query.

    Raises:
        ValueError: as in `address_of`.
    """
    address, _, query = text.partition("?")
    parts = urlsplit(address_of(address))
    if not re.fullmatch(r"[\x21-\x7e]*", query):
        raise ValueError("is not an address")
    if not is_guarded(parts.scheme, parts.hostname):
        raise ValueError("must begin with https://, other than on this machine")
    return text


def postgres_address(text: str) -> Secret:
    """Read the address of a Postgres database, in the form that `storage.Database` takes.

    Raises:
        ValueError: says what is wrong, without repeating it, for it holds a password.
    """
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("postgresql+psycopg", "postgresql", "postgres"):
        raise ValueError("must begin with postgresql+psycopg:// (postgresql:// and postgres:// mean the same)")
    parts = _store_address(f"postgresql://{rest}")
    if not parts.path.strip("/"):
        raise ValueError("names no database: postgresql+psycopg://user:password@host:5432/name")
    return Secret(f"postgresql+psycopg://{rest}")


def redis_address(text: str) -> Secret:
    """Read the address of a Redis or Valkey server.

    Raises:
        ValueError: as in `postgres_address`.
    """
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    parts = _store_address(text)
    if scheme.lower() != "unix" and re.fullmatch(r"(/[0-9]{0,5})?", parts.path, re.ASCII) is None:
        raise ValueError("must end with the number of a database, as in redis://host:6379/0")
    return Secret(f"{scheme.lower()}://{rest}")


def told(address: Secret) -> str:
    """The address of a store as a person may see it: without user, password and options."""
    parts = urlsplit(address.reveal())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _store_address(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not an address; / # @ and blanks in a password have to be written as %XX") from None
    if re.search(r"[\x00-\x20\x7f]", text) or "#" in text:
        raise ValueError("is not an address; / # @ and blanks in a password have to be written as %XX")
    if not parts.hostname and not parts.path and "host=" not in parts.query:
        raise ValueError("names no host")
    return parts
