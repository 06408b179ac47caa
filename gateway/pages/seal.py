"""What a browser keeps for us and can neither read nor change."""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any

JSON = dict[str, Any]

_NONCE_BYTES = 12
_ABOUT = b"session of the gateway's pages, 1"
#: Browsers keep some 4 kB of a cookie.
MOST_CHARACTERS = 3800


class Seal:
    """Authenticated encryption (AES-256-GCM, NIST SP 800-38D) of small values.

    Args:
        key: 32 bytes that only gateways of one installation have.
    """

    def __init__(self, key: bytes) -> None:
        # imported here: it takes 40 ms, and a gateway whose pages nobody opens needs none of it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._cipher = AESGCM(key)

    def close(self, value: JSON) -> str:
        """Return a value as text that fits a cookie.

        Raises:
            ValueError: it is longer than a cookie may be.
        """
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(value).encode(), _ABOUT)
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
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _ABOUT)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        value = json.loads(opened)
        return value if isinstance(value, dict) else None
