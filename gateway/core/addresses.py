"""Which addresses can be trusted with what nobody on the way may read or change."""

from __future__ import annotations

#: What this machine calls itself.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_guarded(scheme: str, host: str | None) -> bool:
    """Whether nobody on the way can read or change what is sent: by https, or by http within this machine.

    Args:
        scheme: of a URL, in small letters.
        host: likewise, without brackets and port; None where the URL has none.
    """
    return bool(host) and (scheme == "https" or (scheme == "http" and host in LOOPBACK))
