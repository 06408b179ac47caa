"""What a browser keeps for us and can neither read nor change."""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any

JSON = dict[str, Any]

_NONCE_BYTES = 12
#: What is sealed: a value of one kind is of no use in the place of another.
SESSION, SIGN_IN = b"session of the gateway's pages, 1", b"sign-in to the gateway's pages, 1"
#: Browsers keep some 4 kB of a cookie.
MOST_CHARACTERS = 3800


class Seal:
    """Authenticated encryption (AES-256-GCM, NIST SP 800-38D) of small values.

    Args:
        key: 32 bytes that only gateways of one installation have.
        about: what kind of value it is, `SESSION` or `SIGN_IN`.
    """

    def __init__(self, key: bytes, about: bytes = SESSION) -> None:
        # imported here: it takes 40 ms, and a gateway whose pages nobody opens needs none of it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._cipher = AESGCM(key)
        self._about = about

    def close(self, value: JSON) -> str:
        """Return a value as text that fits a cookie.

        Raises:
            ValueError: it is longer than a cookie may be.
        """
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(value).encode(), self._about)
        text = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        if len(text) > MOST_CHARACTERS:
            raise ValueError("too long for a cookie")
        return text

    def open(self, text: str) -> JSON | None:
        """Return the value; None for what this seal did not close."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # see above

        if len(text) > MOST_CHARACTERS or not text.isascii():
            return None
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._about)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        value = json.loads(opened)
        return value if isinstance(value, dict) else None
