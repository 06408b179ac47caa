"""Virtual keys: how one is written, how it is kept, and what is known of it.

A key is `sk-gw-<id>-<secret><check>`: 6, 12, 1, 43 and 8 characters. The id is public and stays when the key is
rotated; the secret has 256 bits. The check is made of both with the gateway's pepper, so that a text which this gateway
did not make is refused by arithmetic: no guess of a stranger's ever reaches the database. Lengths are fixed, so that
tools which look for leaked secrets know a key when they see one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.rights import Rights
from gateway.secret import Secret

PREFIX = "sk-gw-"
ID_LENGTH = 12
_SECRET_LENGTH = 43  # 62 ** 43 is just above 2 ** 256
_CHECK_LENGTH = 8

#: What an id and a secret are made of, bytes of chance each.
ID_BYTES = 8
SECRET_BYTES = 32

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID = re.compile(rf"[0-9a-z]{{{ID_LENGTH}}}")
_KEY = re.compile(rf"sk-gw-([0-9a-z]{{{ID_LENGTH}}})-([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECK_LENGTH}}})")
_LENGTH = len(PREFIX) + ID_LENGTH + 1 + _SECRET_LENGTH + _CHECK_LENGTH
_SHAPE = PREFIX.encode()


class Pepper:
    """What keys are hashed with besides themselves: a copy of the database alone proves no guess.

    Each use has a key of its own, derived by HMAC from the one secret (as HKDF does, RFC 5869, section 2.3), so that
    what is learnt of one says nothing of another.

    Args:
        secret: of the operator's, or made once; all keys that were made with another one are unknown.
    """

    def __init__(self, secret: Secret) -> None:
        root = secret.reveal().encode("utf-8", "surrogateescape")
        self._for_hash, self._for_check = (_mac(root, use) for use in (b"stored hash of a key", b"check of a key"))
        #: What the pages' cookies are sealed with, 32 bytes.
        self.seal = _mac(root, b"seal of the pages' sessions")
        #: Says which pepper it is, and nothing of it: 8 hex digits.
        self.name = _mac(root, b"name of the pepper").hex()[:8]

    def key(self, id: str, chance: bytes) -> Secret:
        """Write a key.

        Args:
            id: of `ID_LENGTH`.
            chance: `SECRET_BYTES` random bytes.
        """
        body = f"{PREFIX}{id}-{_spelt(chance, _SECRET_LENGTH, 62)}"
        return Secret(body + self._check(body))

    def made(self, credential: bytes) -> bool:
        """Whether a credential is a key that was made with this pepper, be it of one that is gone. Constant time."""
        if not has_shape(credential) or not credential.isascii():
            return False
        text = credential.decode("ascii")
        body, check = text[:-_CHECK_LENGTH], text[-_CHECK_LENGTH:]
        return hmac.compare_digest(self._check(body), check) and _KEY.fullmatch(text) is not None

    def hashed(self, credential: bytes) -> str:
        """What is kept of a key: 64 hex digits of HMAC-SHA256. The key is random, so no slow hash is needed."""
        return _mac(self._for_hash, credential).hex()

    def _check(self, body: str) -> str:
        return _spelt(_mac(self._for_check, body.encode())[:8], _CHECK_LENGTH, 62)


def has_shape(credential: bytes) -> bool:
    """Whether a credential begins as a virtual key does, and is as long."""
    return len(credential) == _LENGTH and credential.startswith(_SHAPE)


def new_id(chance: bytes) -> str:
    """Write an id of `ID_LENGTH` digits and small letters. `chance` is `ID_BYTES` random bytes."""
    return _spelt(chance, ID_LENGTH, 36)


def is_id(text: str) -> bool:
    """Whether a text can be the id of a key."""
    return _ID.fullmatch(text) is not None


def could_name(text: str) -> bool:
    """Whether a text can be the id of a key, a project or a user, or a word of the audit; all are printable ASCII.

    Some others no database takes: Postgres has no NUL, and half a surrogate pair has no UTF-8.
    """
    return text.isascii() and text.isprintable()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _spelt(chance: bytes, length: int, base: int) -> str:
    number, digits = int.from_bytes(chance), []
    for _ in range(length):
        number, digit = divmod(number, base)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True)
class Key:
    """What is known of a virtual key; not the key itself, which nobody can tell.

    Attributes:
        id: the public part of it.
        name: the operator's, 1 to 256 characters.
        project: the id of the project whose it is, or None; `project_name` is that one's name.
        user: the id of the user whose it is, or None; `user_name` likewise.
        parent: the id of the key that it hangs from: it is of use only while that one is, and never more.
        tags: of every trace that is made with it.
        made_s: when, and `made_by` whom; seconds since the epoch, as are all other times.
        expires_s: from when on it is of no use; None for never.
        used_s: when it was last used, to the minute; None for never.
        deleted_s: when it was deleted; such a key cannot come back.
        ends_s: when each of its secrets ends, of those that are of use; None for the one that has no end.
        lost: it was made with another pepper than this gateway has, and only a rotation makes it of use again.
    """

    id: str
    name: str
    rights: Rights = field(default_factory=Rights)
    project: str | None = None
    project_name: str | None = None
    user: str | None = None
    user_name: str | None = None
    parent: str | None = None
    tags: Sequence[str] = ()
    made_s: float = 0.0
    made_by: str = ""
    expires_s: float | None = None
    disabled: bool = False
    used_s: float | None = None
    deleted_s: float | None = None
    ends_s: Sequence[float | None] = ()
    lost: bool = False

    def state(self, now_s: float) -> str:
        """`deleted`, `disabled`, `expired`, `lost` or `active`: the first that is so. A parent's state is its own."""
        if self.deleted_s is not None:
            return "deleted"
        if self.disabled:
            return "disabled"
        if self.expires_s is not None and self.expires_s <= now_s:
            return "expired"
        return "lost" if self.lost else "active"
