"""Which addresses can be trusted."""

from __future__ import annotations

import pytest

from gateway.core.addresses import is_guarded


@pytest.mark.parametrize(
    ("scheme", "host", "guarded"),
    [
        ("https", "id.example", True),
        ("https", "127.0.0.1", True),
        ("http", "localhost", True),
        ("http", "127.0.0.1", True),
        ("http", "::1", True),
        ("http", "id.example", False),
        ("http", "localhost.evil.example", False),
        ("http", "127.0.0.2", False),
        ("ftp", "localhost", False),
        ("", "localhost", False),
        ("https", "", False),
        ("https", None, False),
    ],
)
def test_only_tls_and_this_machine_keep_others_out(scheme: str, host: str | None, guarded: bool) -> None:
    assert is_guarded(scheme, host) is guarded
