"""Settings that are loaded to see what is wrong with them."""

from __future__ import annotations

import pytest

from gateway.settings import Settings, SettingsError


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return caught.value.faults


SIGN_IN = {
    "GATEWAY_OIDC_ISSUER": "https://id.example",
    "GATEWAY_OIDC_CLIENT_ID": "gateway",
    "GATEWAY_OIDC_CLIENT_SECRET": "secret-of-the-client",
}
