"""How a notice is signed, so that its receiver can tell that it is ours, and when it was sent.

As the Standard Webhooks specification has it (https://www.standardwebhooks.com, "Signature scheme", symmetric).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
#: What a key is made of, at least: less can be guessed.
SHORTEST_BYTES = 24


def signing_key(secret: str) -> bytes:
    """Return the key that a secret stands for.

    Args:
        secret: `whsec_` and Base64 of the key, or any text, which is the key itself in UTF-8.

    Raises:
        ValueError: it is shorter than `SHORTEST_BYTES`, or no Base64; says which, and not what it is.
    """
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret[len(PREFIX) :], validate=True)
        except binascii.Error:
            raise ValueError(f"is no Base64 behind {PREFIX}") from None
    else:
        key = secret.encode()
    if len(key) < SHORTEST_BYTES:
        raise ValueError(f"is too short: it can be guessed below {SHORTEST_BYTES} bytes")
    return key


def signature(key: bytes, id: str, timestamp_s: int, body: bytes) -> str:
    """Sign a notice: `v1,` and Base64 of the HMAC-SHA256 of id, time and body, with dots between.

    Args:
        key: what `signing_key` returned.
        id: of the notice, the same however often it is sent.
        timestamp_s: when it is sent, seconds since the epoch.
        body: as it is sent.
    """
    signed = b".".join((id.encode(), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
