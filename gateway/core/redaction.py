"""What a record may keep: no credential, and of media a digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

#: Texts shorter than this are kept even where they look like base64: ids, hashes and signatures do.
_LONG_BASE64 = 2048

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)

#: Shapes of credentials as providers, Braintrust, clouds and this gateway issue them.
_CREDENTIALS = re.compile(
    r"""
      # a digit among them, or words like sk-learn-pipelines would go
      \b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|fw|csk|nvapi|bt-st|glpat|ghp|gho|ghs|github_pat)
        [-_](?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{12,}
    | \bAIza[A-Za-z0-9_-]{30,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | (?<=\bBearer\s)[A-Za-z0-9._~+/=-]{8,}
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}
    """,
    re.VERBOSE | re.ASCII,
)


class Redactor:
    """Cleans what is about to be recorded or shown.

    Args:
        secrets: the gateway's own credentials; each is taken out wherever it stands, whatever its shape.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        # a very short "secret" would blank out ordinary words
        known = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """Return `text` without anything that is or looks like a credential."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _CREDENTIALS.sub(REDACTED, text)

    def value(self, value: Any) -> Any:
        """Return a copy of a JSON value without credentials, its base64 media replaced by digests."""
        if isinstance(value, str):
            return digest(value) or self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def digest(text: str) -> str | None:
    """Describe a text that is media (a base64 data URL, or long bare base64); None for any other text.

    Returns:
        Type, size in bytes and SHA-256 of the decoded media, so that two traces can be compared.
    """
    if text.startswith("data:") and (head := _DATA_URL.match(text)):
        return _described(text[head.end() :], head.group(1) or "text/plain")
    if len(text) >= _LONG_BASE64 and _BASE64.fullmatch(text):
        return _described(text, "base64")
    return None


def _described(encoded: str, kind: str) -> str:
    try:
        media = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_" if "-" in encoded else None)
    except (binascii.Error, ValueError):
        media = encoded.encode()
        kind += ", not decodable"
    return f"[{kind}, {len(media)} bytes, sha256 {hashlib.sha256(media).hexdigest()}]"
