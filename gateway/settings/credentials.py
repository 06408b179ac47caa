"""What the environment says about the providers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.core.providers import PROVIDERS, Provider
from gateway.secret import Secret
from gateway.settings.addresses import address_of
from gateway.settings.variables import Variables


@dataclass(frozen=True)
class Credential:
    """What the environment says about one provider; `missing` is None when it can be used."""

    api_key: Secret | None = None
    api_base: str | None = None
    api_version: str | None = None
    missing: str | None = None


def credentials_of(variables: Variables) -> tuple[dict[str, Credential], list[str]]:
    """Return what is known about every provider of which a variable is set, by name, and the faults."""
    credentials: dict[str, Credential] = {}
    faults: list[str] = []
    for provider in PROVIDERS.values():
        names = (*provider.keys, *provider.bases, *provider.any_of, *provider.account, *provider.versions)
        if variables.first(names):
            credentials[provider.name] = _credential(provider, variables, faults)
    return credentials, faults


def unset_credential(provider: str) -> Credential:
    """Return what is missing of a provider of which no variable is set.

    Raises:
        KeyError: no such provider is served.
    """
    return _credential(PROVIDERS[provider], Variables({}, {}), [])


def _credential(provider: Provider, variables: Variables, faults: list[str]) -> Credential:
    key, base = variables.first(provider.keys), variables.first(provider.bases)
    address = provider.address
    try:
        if key and not fits_a_header(key[1]):
            faults.append(f"{key[0]} holds a character that an HTTP header cannot carry")
        if base:
            address = address_of(base[1])
    except ValueError as fault:
        faults.append(f"{base[0] if base else provider.name} {fault}")
    version = variables.first(provider.versions)
    return Credential(
        api_key=Secret(key[1]) if key else None,
        api_base=address,
        api_version=version[1] if version else None,
        missing=provider.missing(
            key=key is not None,
            address=base is not None,
            identity=variables.first(provider.any_of) is not None,
            account=variables.first(provider.account) is not None,
        ),
    )


def fits_a_header(key: str) -> bool:
    """Whether a key can travel in a header: printable ASCII (RFC 9110, section 5.5, without its obsolete part)."""
    return re.fullmatch(r"[\x20-\x7e]+", key) is not None
