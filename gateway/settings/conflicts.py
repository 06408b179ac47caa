"""What does not go together, what is not a setting, and what is weak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.spelling import nearest
from gateway.settings.readers import READERS
from gateway.settings.setting import Setting
from gateway.settings.table import GROUPS, SETTINGS
from gateway.settings.variables import Variables

#: Characters of a token; 16 of chance hold 64 bits at least, however they are spelt.
_SAFE_TOKEN_LENGTH = 16


def conflicts(values: Mapping[str, Any]) -> list[str]:
    """Name what does not go together.

    Args:
        values: what was read, by attribute; nothing for a variable that is not set.
    """
    faults = []
    if "config" in values and "config_yaml" in values:
        faults.append("GATEWAY_CONFIG and GATEWAY_CONFIG_YAML are both set: remove one of them")
    if values.get("counters") == "redis" and "redis_url" not in values:
        faults.append("GATEWAY_COUNTERS is redis, and REDIS_URL is not set")
    if values.get("counters") == "memory" and values.get("workers", 1) > 1:
        faults.append("GATEWAY_COUNTERS is memory, which several workers (WEB_CONCURRENCY) do not share")
    if values.get("admin_token") in values.get("tokens", ()):
        faults.append("GATEWAY_ADMIN_TOKEN is one of GATEWAY_AUTH_TOKEN: who calls models must not manage keys with it")
    faults += _oidc_conflicts(values)
    if values.get("cache_store") == "redis" and "redis_url" not in values:
        faults.append("GATEWAY_CACHE_STORE is redis, and REDIS_URL names no server")
    return faults


def _oidc_conflicts(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if "oidc_issuer" in values and not values.get("oidc_audience") and "oidc_client_id" not in values:
        faults.append(
            "GATEWAY_OIDC_ISSUER needs GATEWAY_OIDC_AUDIENCE for callers with a JWT, else tokens made for others would "
            "be taken; or GATEWAY_OIDC_CLIENT_ID for people who sign in"
        )
    signing_in = GROUPS["People who sign in with OpenID Connect"]
    for row in (*GROUPS["Callers with a JWT"], *signing_in):
        value = values.get(row.attribute)
        if not value or value == _default(row):  # no name between commas says nothing
            continue
        if "oidc_issuer" not in values:
            faults.append(f"{row.env} means nothing without GATEWAY_OIDC_ISSUER")
        if row in signing_in and "oidc_client_id" not in values:
            faults.append(f"{row.env} means nothing without GATEWAY_OIDC_CLIENT_ID")
    if "oidc_client_id" in values and "oidc_client_secret" not in values:
        faults.append("GATEWAY_OIDC_CLIENT_ID needs GATEWAY_OIDC_CLIENT_SECRET")
    claim, wanted = "oidc_admin_claim" in values, bool(values.get("oidc_admin_values"))
    if claim and not wanted:
        faults.append("GATEWAY_OIDC_ADMIN_CLAIM needs GATEWAY_OIDC_ADMIN_VALUES")
    if wanted and not claim:
        faults.append("GATEWAY_OIDC_ADMIN_VALUES needs GATEWAY_OIDC_ADMIN_CLAIM")
    return faults


def _default(row: Setting) -> Any:
    return None if row.default is None else READERS[row.kind](row, row.default)


def weak(values: Mapping[str, Any]) -> list[str]:
    """Name the variables with a token that somebody could guess, which no count of wrong keys stops.

    Args:
        values: as in `conflicts`.
    """
    admin = values.get("admin_token")
    tokens = {"GATEWAY_AUTH_TOKEN": values.get("tokens", ()), "GATEWAY_ADMIN_TOKEN": () if admin is None else (admin,)}
    return [
        f"{name} has a token of fewer than {_SAFE_TOKEN_LENGTH} characters, which can be guessed; "
        "`openssl rand -hex 32` makes a good one"
        for name, given in tokens.items()
        if any(len(token.reveal()) < _SAFE_TOKEN_LENGTH for token in given)
    ]


def strangers(variables: Variables) -> tuple[list[str], list[str]]:
    """Judge the `GATEWAY_*` variables that no row knows: (misspelt, unknown)."""
    known = [row.env for row in SETTINGS if row.env.startswith("GATEWAY_")]
    faults, warnings = [], []
    for name in sorted(variables):
        if not name.startswith("GATEWAY_") or name in known:
            continue
        if name.startswith(("GATEWAY_SERVICE_", "GATEWAY_PORT")):  # Kubernetes, for a service named "gateway"
            continue
        if meant := nearest(name, known):
            faults.append(f"{name} is not a setting; {meant} is meant?")
        else:
            warnings.append(f"{name} is not a setting of this release and is ignored")
    return faults, warnings
