"""Every setting: one row a variable (`table.py`), read once at start, all faults named at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

from gateway.core.providers import PROVIDERS
from gateway.secret import Secret
from gateway.settings.addresses import address_of, postgres_address, told
from gateway.settings.credentials import Credential, fits_a_header, unset_credential
from gateway.settings.reading import read
from gateway.settings.setting import Setting, bytes_of
from gateway.settings.table import GROUPS
from gateway.settings.variables import Variables, withdraw

__all__ = [
    "ROUTES_FILE",
    "Settings",
    "SettingsError",
    "Shown",
    "address_of",
    "bytes_of",
    "fits_a_header",
    "postgres_address",
    "told",
    "withdraw",
]

#: The routes file that is read when no variable names another.
ROUTES_FILE = "gateway.yaml"


class SettingsError(ValueError):
    """Settings that cannot be used; `faults` has every one of them, a sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Shown:
    """A setting as people may see it; `value` is None where it is not set."""

    env: str
    value: str | None
    help: str


@dataclass(frozen=True)
class Settings:
    """The gateway's configuration.

    Attributes:
        tokens_set: `GATEWAY_AUTH_TOKEN` is there; then `tokens` is not empty.
        prices: the file of `GATEWAY_PRICES`.
        usage_cost: `on` where answers have `usage.cost`, else `off`.
        config, config_yaml: the routes file, or its text; at most one of them (`gateway.routes` reads it).
        variables: all variables as they were, for a routes file to name.
        credentials: every provider of which a variable is set, by name.
        identity: variables of clouds and accounts that stand in `.env` only. LiteLLM reads such variables
            from the process environment, so they have to be put there.
        warnings: what the operator should know and need not mend.
    """

    tokens: tuple[Secret, ...] = ()
    tokens_set: bool = False
    admin_token: Secret | None = None
    key_pepper: Secret | None = None
    oidc_issuer: str | None = None
    oidc_audience: tuple[str, ...] = ()
    oidc_jwks_url: str | None = None
    oidc_algorithms: tuple[str, ...] = ("RS256", "ES256")
    oidc_caller_claim: str = "sub"
    oidc_project_claim: str | None = None
    oidc_scopes_claim: str = "scope"
    oidc_call_scope: str | None = None
    oidc_admin_scope: str | None = None
    oidc_models_claim: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: Secret | None = None
    oidc_scope: str = "openid email"
    oidc_admin_emails: tuple[str, ...] = ()
    oidc_admin_claim: str | None = None
    oidc_admin_values: tuple[str, ...] = ()
    braintrust_api_key: Secret | None = None
    braintrust_project: str = "llm-gateway"
    trace_content: str = "on"
    usage_cost: str = "on"
    local_traces: str = "auto"
    local_traces_days: float = 14.0
    local_traces_mb: float = 512.0
    ledger_days: float = 400.0
    spool_mb: float = 1024.0
    spool_full: str = "drop"
    spool_fsync: str = "interval"
    ui: str = "on"
    metrics: str = "token"
    braintrust_app_url: str | None = None
    braintrust_api_url: str | None = None
    braintrust_org_name: str | None = None
    otlp_endpoint: str | None = None
    otlp_traces_endpoint: str | None = None
    otlp_headers: Mapping[str, Secret] = field(default_factory=dict)
    otlp_protocol: str = "http/protobuf"
    otlp_compression: str = "gzip"
    otel_service_name: str = "llm-gateway"
    otel_resource: Mapping[str, str] = field(default_factory=dict)
    otel_content: str = "false"
    data_dir: Path = Path(".gateway")
    timeout_s: float = 600.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 300.0
    keepalive_s: float = 15.0
    max_body_mb: float = 32.0
    max_upload_mb: float = 512.0
    prices: Path | None = None
    stored_responses_days: float = 30.0
    stored_responses_mb: float = 256.0
    cache: str = "off"
    cache_ttl_s: int = 3600
    cache_store: str = "auto"
    cache_mb: float = 256.0
    cache_largest_mb: float = 1.0
    webhook_secret: Secret | None = None
    database_url: Secret | None = None
    redis_url: Secret | None = None
    rate_limit_rpm: int | None = None
    counters: str = "auto"
    limits_fail: str = "open"
    budget_reserve: str = "likely"
    budget_unpriced: str = "refuse"
    cors_origins: tuple[str, ...] = ()
    demo: str = "auto"
    log_format: str = "json"
    log_level: str = "info"
    workers: int | None = None
    relay: frozenset[str] = frozenset()
    config: Path | None = None
    config_yaml: Secret | None = None
    variables: Variables = field(default_factory=lambda: Variables({}, {}), repr=False, compare=False)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def shown(self) -> list[tuple[str, list[Shown]]]:
        """Every setting, by group, for people; of a secret only whether it is set."""
        return [
            (group, [Shown(row.env, _shown(row, getattr(self, row.attribute)), row.help) for row in rows])
            for group, rows in GROUPS.items()
        ]

    @property
    def demo_on(self) -> bool:
        """Whether the demo models are served.

        A cloud's identity does not count as a provider's key: it is often there for another purpose.
        """
        if self.demo != "auto":
            return self.demo == "on"
        return not any(
            credential.missing is None and PROVIDERS[name].needs != "cloud"
            for name, credential in self.credentials.items()
        )

    @property
    def database(self) -> Path:
        """The file of the gateway's own database, also where others share one on a server."""
        return self.data_dir / "gateway.db"

    @property
    def store_passwords(self) -> tuple[Secret, ...]:
        """What no record may show of the addresses of the stores: their passwords, as written and as meant."""
        found = [url.reveal() for url in (self.database_url, self.redis_url) if url is not None]
        passwords = [password for url in found if (password := urlsplit(url).password)]
        return tuple(Secret(text) for text in dict.fromkeys((*found, *passwords, *map(unquote, passwords))))

    @property
    def manageable(self) -> bool:
        """Whether somebody is known by the settings alone who can make keys, or call without one of this gateway's."""
        people = self.oidc_client_id is not None and bool(self.oidc_admin_emails or self.oidc_admin_claim)
        return self.admin_token is not None or bool(self.oidc_audience) or (people and self.ui == "on")

    @property
    def otlp_url(self) -> str | None:
        """Where spans are posted; None for nowhere."""
        if self.otlp_traces_endpoint is not None:
            return self.otlp_traces_endpoint
        return None if self.otlp_endpoint is None else f"{self.otlp_endpoint}/v1/traces"

    @property
    def traces_kept_here(self) -> bool:
        """Whether traces are kept in the data folder."""
        return self.local_traces == "on" or (self.local_traces == "auto" and self.braintrust_api_key is None)

    def credential(self, provider: str) -> Credential:
        """Return what is known about a provider of `PROVIDERS`, be it only what is missing.

        Raises:
            KeyError: no such provider is served.
        """
        return self.credentials.get(provider) or unset_credential(provider)

    @classmethod
    def load(cls, environ: Mapping[str, str], dotenv: Mapping[str, str | None] | None = None) -> Settings:
        """Read the settings out of two mappings; a variable in `environ` hides the same one in `dotenv`.

        Raises:
            SettingsError: with every fault.
        """
        values, faults = read(Variables(environ, dotenv or {}))
        if faults:
            raise SettingsError(faults)
        return cls(**values)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, directory: Path | None = None) -> Settings:
        """Read the settings of a process.

        Args:
            environ: its environment.
            directory: where it is started: `.env` is looked for there, and relative paths count from there.

        Raises:
            SettingsError: with every fault.
        """
        directory = directory or Path.cwd()
        try:
            dotenv = dotenv_values(directory / ".env", interpolate=False, encoding="utf-8-sig")
        except (UnicodeDecodeError, OSError) as error:
            raise SettingsError([f".env cannot be read: {type(error).__name__}"]) from None
        values, faults = read(Variables(environ, dotenv))
        settings = cls(**values)
        prices = directory / settings.prices if settings.prices else None
        if prices is not None and not prices.is_file():
            faults.append(f"GATEWAY_PRICES names no file: {prices}")
        config = directory / settings.config if settings.config else None
        if config is not None and not config.is_file():
            faults.append(f"GATEWAY_CONFIG names no file: {config}")
        if config is None and settings.config_yaml is None and (directory / ROUTES_FILE).exists():
            config = directory / ROUTES_FILE
        if faults:
            raise SettingsError(faults)
        return dataclasses.replace(settings, data_dir=directory / settings.data_dir, prices=prices, config=config)


def _shown(row: Setting, value: Any) -> str | None:
    if value is None or value in ((), frozenset()):
        return None
    if row.secret:
        return "set"
    return ", ".join(sorted(value)) if isinstance(value, tuple | frozenset) else str(value)
