"""Every setting: one row a variable, read once at start, all faults named at once.

`.env.example` and the table in `docs/settings.md` are made from the rows, and a test compares them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from dotenv import dotenv_values

from gateway.core.providers import PROVIDERS, SAME_WIRE, UNUSED_SECRETS, Provider
from gateway.core.spelling import nearest
from gateway.core.webhooks import signing_key
from gateway.secret import Secret

#: Signatures that are made with a private key (RFC 7518, section 3.1; RFC 8037): who can check one cannot make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_SHORTEST_PEPPER = 32

#: The routes file that is read when no variable names another.
ROUTES_FILE = "gateway.yaml"


class SettingsError(ValueError):
    """Settings that cannot be used; `faults` has every one of them, a sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Credential:
    """What the environment says about one provider; `missing` is None when it can be used."""

    api_key: Secret | None = None
    api_base: str | None = None
    api_version: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Setting:
    """One variable.

    Attributes:
        attribute: its name in `Settings`.
        kind: which of `_READERS` reads it.
        default: as one would write it; None where leaving it out means something of its own.
        minimum: the smallest number allowed; None means anything above 0.
    """

    env: str
    attribute: str
    kind: str
    default: str | None
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False


def _seconds(env: str, attribute: str, default: str, help: str) -> Setting:
    return Setting(env, attribute, "number", default, help, unit="seconds", maximum=86_400)


GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "Who may call": (
        Setting(
            *("GATEWAY_AUTH_TOKEN", "tokens", "secrets", None),
            help="The tokens that callers may use as their API key, separated by commas. Without it the "
            "gateway starts on a loopback address only, with a token that it makes and prints.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_ADMIN_TOKEN", "admin_token", "secret", None),
            help="The token of whoever manages keys (docs/keys.md); it calls no model.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_KEY_PEPPER", "key_pepper", "pepper", None),
            help="What virtual keys are hashed with, at least 32 random characters, the same for all gateways of one "
            "database; without it one is made and kept in the data folder. Keys made with another one are unknown.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_CORS_ORIGINS", "cors_origins", "origins", None),
            help="The web origins whose pages may call, separated by commas, or `*`; none without it.",
        ),
    ),
    "Callers with a JWT": (
        Setting(
            *("GATEWAY_OIDC_ISSUER", "oidc_issuer", "issuer", None),
            help="The issuer whose JWTs are taken as keys (docs/keys.md), and where people sign in to the pages "
            "(docs/dashboard.md), to the letter as `iss` has it.",
        ),
        Setting(
            *("GATEWAY_OIDC_AUDIENCE", "oidc_audience", "names", None),
            help="What the `aud` of a JWT must have one of, separated by commas; without it none is taken as a key.",
        ),
        Setting(
            *("GATEWAY_OIDC_JWKS_URL", "oidc_jwks_url", "keyset", None),
            help="The address of the issuer's public keys; without it the issuer's "
            "`/.well-known/openid-configuration` names it.",
        ),
        Setting(
            *("GATEWAY_OIDC_ALGORITHMS", "oidc_algorithms", "algorithms", "RS256,ES256"),
            help="The algorithms that are taken, separated by commas, of RS256 to RS512, PS256 to PS512, ES256 to "
            "ES512 and EdDSA.",
        ),
        Setting(
            *("GATEWAY_OIDC_CALLER_CLAIM", "oidc_caller_claim", "text", "sub"),
            help="The claim that says who calls; here and below dots lead into claims within claims.",
        ),
        Setting(
            *("GATEWAY_OIDC_PROJECT_CLAIM", "oidc_project_claim", "text", None),
            help="The claim that names a project, whose callers share stored responses.",
        ),
        Setting(
            *("GATEWAY_OIDC_SCOPES_CLAIM", "oidc_scopes_claim", "text", "scope"),
            help="The claim that lists what a caller may do: a list, or a text with blanks between.",
        ),
        Setting(
            *("GATEWAY_OIDC_CALL_SCOPE", "oidc_call_scope", "text", None),
            help="What must stand in that list for calls; without it every token of the issuer will do.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_SCOPE", "oidc_admin_scope", "text", None),
            help="What must stand in that list for managing keys; without it no token will do.",
        ),
        Setting(
            *("GATEWAY_OIDC_MODELS_CLAIM", "oidc_models_claim", "text", None),
            help="The claim that lists the models that a caller may call, `*` for any text; without it all.",
        ),
    ),
    "People who sign in with OpenID Connect": (
        Setting(
            *("GATEWAY_OIDC_CLIENT_ID", "oidc_client_id", "visible", None),
            help="What the gateway is called at GATEWAY_OIDC_ISSUER; with it people sign in to the pages there "
            "(docs/dashboard.md).",
        ),
        Setting(
            *("GATEWAY_OIDC_CLIENT_SECRET", "oidc_client_secret", "client_secret", None),
            help="The secret that goes with it.",
            secret=True,
        ),
        Setting(
            *("GATEWAY_OIDC_SCOPE", "oidc_scope", "scope", "openid email"),
            help="What is asked for there, with blanks between; `openid` must be among it.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_EMAILS", "oidc_admin_emails", "emails", None),
            help="Who manages the gateway: verified e-mail addresses, or `@example.com` for all of a domain, separated "
            "by commas.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_CLAIM", "oidc_admin_claim", "text", None),
            help="A claim of the ID token that says the same, such as `groups`; dots lead into claims within claims.",
        ),
        Setting(
            *("GATEWAY_OIDC_ADMIN_VALUES", "oidc_admin_values", "names", None),
            help="What that claim must have one of, separated by commas; needed with it.",
        ),
    ),
    "Traces": (
        Setting(
            *("BRAINTRUST_API_KEY", "braintrust_api_key", "secret", None),
            help="The key of the Braintrust organisation that gets the traces; without it they are kept here.",
            secret=True,
        ),
        Setting(
            *("BRAINTRUST_PROJECT", "braintrust_project", "text", "llm-gateway"),
            help="The project that traces go to; Braintrust makes it when it does not exist.",
        ),
        Setting(
            *("GATEWAY_TRACE_CONTENT", "trace_content", "choice", "on"),
            help="Whether traces hold what was asked and answered; `off` keeps tokens, costs, times and errors.",
            choices=("on", "off"),
        ),
        Setting(
            *("GATEWAY_LOCAL_TRACES", "local_traces", "choice", "auto"),
            help="Whether traces are kept here too, in the data folder, for `gateway traces`; `auto`: while no "
            "BRAINTRUST_API_KEY is set.",
            choices=("on", "off", "auto"),
        ),
        Setting(
            *("GATEWAY_LOCAL_TRACES_DAYS", "local_traces_days", "number", "14"),
            help="How long traces are kept here.",
            unit="days",
            maximum=3650,
        ),
        Setting(
            *("GATEWAY_LOCAL_TRACES_MB", "local_traces_mb", "number", "512"),
            help="How much room traces may take here; the oldest go first.",
            unit="MB of 1,048,576 bytes",
            minimum=1,
            maximum=1_048_576,
        ),
        Setting(
            *("GATEWAY_LEDGER_DAYS", "ledger_days", "number", "400"),
            help="How long the ledger keeps what each call used and cost (docs/usage.md); 0 for ever.",
            unit="days",
            minimum=0,
            maximum=36_500,
        ),
        Setting(
            *("GATEWAY_SPOOL_MB", "spool_mb", "number", "1024"),
            help="How much disk traces may take that are not delivered yet.",
            unit="MB of 1,048,576 bytes",
            minimum=8,
            maximum=1_048_576,
        ),
        Setting(
            *("GATEWAY_SPOOL_FULL", "spool_full", "choice", "drop"),
            help="What happens when that room is used up: `drop` answers calls whose traces are lost (counted, and "
            "said in the log), `refuse` answers 503 until traces can be kept again.",
            choices=("drop", "refuse"),
        ),
        Setting(
            *("GATEWAY_SPOOL_FSYNC", "spool_fsync", "choice", "interval"),
            help="When traces are forced to the disk: `interval` five times a second, `always` before the caller "
            "sees the end of the answer, `off` when the system likes. A killed process loses nothing either way; "
            "a machine that loses power does.",
            choices=("interval", "always", "off"),
        ),
        Setting(
            *("BRAINTRUST_APP_URL", "braintrust_app_url", "url", None),
            help="The address to sign in at, where Braintrust is self-hosted.",
        ),
        Setting(
            *("BRAINTRUST_API_URL", "braintrust_api_url", "url", None),
            help="The address that traces are sent to, where it is not the one that signing in gives.",
        ),
        Setting(
            *("BRAINTRUST_ORG_NAME", "braintrust_org_name", "text", None),
            help="The organisation, where the key belongs to several.",
        ),
    ),
    "OpenTelemetry": (
        Setting(
            *("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint", "url", None),
            help="The address of an OpenTelemetry collector that gets the traces too, over HTTP (port 4318, mostly); "
            "`/v1/traces` is added. Without it, or the next one, none does (docs/opentelemetry.md).",
        ),
        Setting(
            *("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otlp_traces_endpoint", "url", None),
            help="The same as it is, with nothing added.",
        ),
        Setting(
            *("OTEL_EXPORTER_OTLP_HEADERS", "otlp_headers", "headers", None),
            help="Headers for it, such as its key: `name=value`, separated by commas, values percent-encoded.",
            secret=True,
        ),
        Setting(
            *("OTEL_EXPORTER_OTLP_PROTOCOL", "otlp_protocol", "choice", "http/protobuf"),
            help="How it is spoken to.",
            choices=("http/protobuf",),
        ),
        Setting(
            *("OTEL_EXPORTER_OTLP_COMPRESSION", "otlp_compression", "choice", "gzip"),
            help="Whether bodies are compressed.",
            choices=("gzip", "none"),
        ),
        Setting(
            *("OTEL_SERVICE_NAME", "otel_service_name", "text", "llm-gateway"),
            help="What the gateway is called there.",
        ),
        Setting(
            *("OTEL_RESOURCE_ATTRIBUTES", "otel_resource", "attributes", None),
            help="What else is said of it: `name=value`, separated by commas, values percent-encoded.",
        ),
        Setting(
            *("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "otel_content", "choice", "false"),
            help="Whether messages are told there; never more than GATEWAY_TRACE_CONTENT says.",
            choices=("true", "false"),
        ),
    ),
    "Models": (
        Setting(
            *("GATEWAY_RELAY", "relay", "relayed", None),
            help="Providers that take OpenAI's wire as it is, whose calls are passed on without LiteLLM: names, "
            "separated by commas, or `all` (docs/relay.md).",
        ),
        Setting(
            *("GATEWAY_CONFIG", "config", "path", None),
            help="The routes file, in the shape of LiteLLM's `config.yaml` (docs/routes.md), read again whenever it "
            "has changed; without it `gateway.yaml` where the gateway is started, if it is there.",
        ),
        Setting(
            *("GATEWAY_CONFIG_YAML", "config_yaml", "yaml", None),
            help="The same as a text, in place of a file.",
            secret=True,
        ),
    ),
    "Calls": (
        _seconds("GATEWAY_TIMEOUT_S", "timeout_s", "600", "How long a call may take in all."),
        _seconds(
            *("GATEWAY_FIRST_BYTE_TIMEOUT_S", "first_byte_timeout_s", "300"),
            help="How long a provider may take to begin its answer.",
        ),
        _seconds(
            *("GATEWAY_IDLE_TIMEOUT_S", "idle_timeout_s", "300"),
            help="How long a provider may be silent in the middle of its answer.",
        ),
        _seconds(
            *("GATEWAY_KEEPALIVE_S", "keepalive_s", "15"),
            help="After how much silence a stream gets a comment, so that nothing on the way closes it.",
        ),
        Setting(
            *("GATEWAY_MAX_BODY_MB", "max_body_mb", "number", "32"),
            help="The largest request body, as sent and as unpacked.",
            unit="MB of 1,048,576 bytes",
            maximum=1024,
        ),
        Setting(
            *("GATEWAY_MAX_UPLOAD_MB", "max_upload_mb", "number", "512"),
            help="The largest form with a file in it (audio, pictures, files); what is beyond 1 MB waits on disk.",
            unit="MB of 1,048,576 bytes",
            maximum=10240,
        ),
        Setting(
            *("GATEWAY_PRICES", "prices", "path", None),
            help="A JSON file of prices in the shape of LiteLLM's `model_prices_and_context_window.json`; "
            "its entries come before LiteLLM's own.",
        ),
        Setting(
            *("GATEWAY_USAGE_COST", "usage_cost", "choice", "on"),
            help="Whether answers have what they cost, in USD, as `usage.cost`.",
            choices=("on", "off"),
        ),
        Setting(
            *("GATEWAY_DEMO", "demo", "choice", "auto"),
            help="Whether the demo models are served; `auto`: while no provider has a key or an address.",
            choices=("on", "off", "auto"),
        ),
    ),
    "Stored responses": (
        Setting(
            *("GATEWAY_STORED_RESPONSES_DAYS", "stored_responses_days", "number", "30"),
            help="How long answers are kept here that a caller wants stored and that no provider stores; 0 keeps none. "
            "Who owns a response that a provider stores is known for 30 days at least.",
            unit="days",
            minimum=0,
            maximum=3650,
        ),
        Setting(
            *("GATEWAY_STORED_RESPONSES_MB", "stored_responses_mb", "number", "256"),
            help="How much room those answers may take here; the oldest go first.",
            unit="MB of 1,048,576 bytes",
            minimum=1,
            maximum=1_048_576,
        ),
    ),
    "Cache": (
        Setting(
            *("GATEWAY_CACHE", "cache", "choice", "off"),
            help="What is answered from the cache where a caller does not say (docs/caching.md): nothing (`off`), what "
            "is asked for without chance (`auto`), or whatever can be (`always`).",
            choices=("off", "auto", "always"),
        ),
        Setting(
            *("GATEWAY_CACHE_TTL_S", "cache_ttl_s", "integer", "3600"),
            help="How long an answer is kept where a caller does not say.",
            unit="seconds",
            minimum=1,
            maximum=604_800,
        ),
        Setting(
            *("GATEWAY_CACHE_STORE", "cache_store", "choice", "auto"),
            help="Where answers are kept: in the `memory` of each worker, in the `database`, or on the server of "
            "REDIS_URL (`redis`); `auto`: there if it is set, else in the database.",
            choices=("auto", "memory", "database", "redis"),
        ),
        Setting(
            *("GATEWAY_CACHE_MB", "cache_mb", "number", "256"),
            help="How much room answers may take, in the database or in each worker's memory; a Redis server has a "
            "bound of its own (`maxmemory`).",
            unit="MB of 1,048,576 bytes",
            minimum=1,
            maximum=1_048_576,
        ),
        Setting(
            *("GATEWAY_CACHE_LARGEST_MB", "cache_largest_mb", "number", "1"),
            help="The largest answer that is kept.",
            unit="MB of 1,048,576 bytes",
            maximum=64,
        ),
    ),
    "Limits and budgets": (
        Setting(
            *("GATEWAY_WEBHOOK_SECRET", "webhook_secret", "webhook", None),
            help="What notices to the webhooks of budgets are signed with (docs/limits.md): `whsec_` and Base64 of 24 "
            "bytes or more, or any text of 24 characters or more; without it they are not signed.",
            secret=True,
        ),
    ),
    "Stores": (
        Setting(
            *("DATABASE_URL", "database_url", "postgres", None),
            help="A Postgres database that several hosts share: `postgresql+psycopg://user:password@host:5432/name`. "
            "Without it all is in `gateway.db` in the data folder; local traces are there in any case.",
            secret=True,
        ),
        Setting(
            *("REDIS_URL", "redis_url", "redis", None),
            help="A Redis or Valkey server for limits and budgets: `redis://:password@host:6379/0`, or `rediss://` "
            "for TLS. Without it they are counted in the database.",
            secret=True,
        ),
    ),
    "Limits": (
        Setting(
            *("GATEWAY_RATE_LIMIT_RPM", "rate_limit_rpm", "integer", None),
            help="How many requests a minute each caller may make that no other limit of requests a minute is about "
            "(docs/limits.md); without it as many as it likes.",
            minimum=1,
            maximum=1_000_000_000,
        ),
        Setting(
            *("GATEWAY_COUNTERS", "counters", "choice", "auto"),
            help="Where limits and budgets are counted; `auto`: on the server of REDIS_URL, where one is set, else in "
            "the database. `memory` is for one worker, and forgets all when it ends.",
            choices=("auto", "memory", "database", "redis"),
        ),
        Setting(
            *("GATEWAY_LIMITS_FAIL", "limits_fail", "choice", "open"),
            help="What happens to calls under a limit or a budget while that store is away: `open`: each worker holds "
            "them to its share; `closed`: they are refused (503).",
            choices=("open", "closed"),
        ),
        Setting(
            *("GATEWAY_BUDGET_RESERVE", "budget_reserve", "choice", "likely"),
            help="What a call reserves of a budget that states no maximum of its own: `likely`: what 99 % of the "
            "caller's answers from that model had, 256 tokens at least; `max`: the most that the model can answer.",
            choices=("likely", "max"),
        ),
        Setting(
            *("GATEWAY_BUDGET_UNPRICED", "budget_unpriced", "choice", "refuse"),
            help="What happens to calls at a model without a known price under a budget in US dollars: `refuse`, or "
            "`allow`, which counts nothing.",
            choices=("refuse", "allow"),
        ),
    ),
    "Process and logs": (
        Setting(
            *("GATEWAY_DATA_DIR", "data_dir", "path", ".gateway"),
            help="The folder of all that the gateway writes; a relative path counts from where it starts.",
        ),
        Setting(
            *("GATEWAY_UI", "ui", "choice", "on"),
            help="Whether the gateway's own pages are served, under `/ui` (docs/dashboard.md).",
            choices=("on", "off"),
        ),
        Setting(
            *("GATEWAY_METRICS", "metrics", "choice", "token"),
            help="Who may read `/metrics`: whoever has a `token`, everybody (`open`), or nobody (`off`).",
            choices=("token", "open", "off"),
        ),
        Setting(
            *("WEB_CONCURRENCY", "workers", "integer", None),
            help="How many worker processes; without it one for each CPU, four at most.",
            minimum=1,
        ),
        Setting(
            *("LOG_FORMAT", "log_format", "choice", "json"),
            help="One JSON object a line, or lines for people.",
            choices=("json", "pretty"),
        ),
        Setting(
            *("LOG_LEVEL", "log_level", "choice", "info"),
            help="The least serious kind of line that is written.",
            choices=("debug", "info", "warning", "error"),
        ),
    ),
}
SETTINGS: tuple[Setting, ...] = tuple(row for rows in GROUPS.values() for row in rows)


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
        return self.credentials.get(provider) or _credential(PROVIDERS[provider], Variables({}, {}), [])

    @classmethod
    def load(cls, environ: Mapping[str, str], dotenv: Mapping[str, str | None] | None = None) -> Settings:
        """Read the settings out of two mappings; a variable in `environ` hides the same one in `dotenv`.

        Raises:
            SettingsError: with every fault.
        """
        settings, faults = _read(Variables(environ, dotenv or {}))
        if faults:
            raise SettingsError(faults)
        return settings

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
        settings, faults = _read(Variables(environ, dotenv))
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


def withdraw(environ: MutableMapping[str, str], keys: Iterable[str] = ()) -> None:
    """Remove the gateway's and the providers' keys from a process environment.

    Who does so keeps the `Settings`: they cannot be read from that environment again. The clouds' identity
    variables stay, since LiteLLM finds them nowhere else.

    Args:
        environ: the environment, with `Settings.identity` in it.
        keys: further variables that hold keys, such as a routes file names; one that LiteLLM looks for stays.
    """
    others = (name for name in keys if name not in _IDENTITY)
    for name in (*_KEYS, *UNUSED_SECRETS, *(row.env for row in SETTINGS if row.secret), *others):
        environ.pop(name, None)


_KEYS = frozenset(name for provider in PROVIDERS.values() for name in provider.keys)
_IDENTITY = frozenset(
    name for row in PROVIDERS.values() for name in (*row.any_of, *row.account, *row.reads) if name not in _KEYS
)
_CLOUDS = ("AWS_", "GOOGLE_", "AZURE_", "VERTEX", "OCI_", "AICORE_")


def _is_identity(name: str) -> bool:
    """Whether LiteLLM looks for a variable in the process environment, and nowhere else."""
    return name in _IDENTITY or (name.startswith(_CLOUDS) and name not in _KEYS)


#: Characters of a token; 16 of chance hold 64 bits at least, however they are spelt.
_SAFE_TOKEN_LENGTH = 16


class Variables:
    """Two layers of variables, trimmed and unquoted: a process's environment, and `.env` under it."""

    def __init__(self, environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> None:
        self._environ = dict(environ)  # as it is now: keys are taken out of a process's own later
        self._dotenv = {name: value or "" for name, value in dotenv.items()}  # a name alone is a blank one

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._environ, *self._dotenv)))

    def get(self, name: str) -> str | None:
        """Return a variable's value, which may be empty, or None where it is not set."""
        value = self.verbatim(name)
        return None if value is None else _unquoted(value)

    def verbatim(self, name: str) -> str | None:
        """Return a variable's value as it stands, or None where it is not set."""
        return self._environ.get(name, self._dotenv.get(name))

    def first(self, names: Iterable[str]) -> tuple[str, str] | None:
        """Return the first variable that is set and not blank, with its value."""
        return next(((name, value) for name in names if (value := self.get(name))), None)

    def identity(self) -> dict[str, str]:
        """Return what LiteLLM reads by itself and only the second layer has."""
        return {
            name: _unquoted(value)
            for name, value in self._dotenv.items()
            if name not in self._environ and _is_identity(name)
        }


def _shown(row: Setting, value: Any) -> str | None:
    if value is None or value in ((), frozenset()):
        return None
    if row.secret:
        return "set"
    return ", ".join(sorted(value)) if isinstance(value, tuple | frozenset) else str(value)


def _unquoted(text: str) -> str:
    text = text.strip()
    for quote in "\"'":
        if len(text) >= 2 and text[0] == text[-1] == quote and quote not in text[1:-1]:
            return text[1:-1].strip()
    return text


def _read(variables: Variables) -> tuple[Settings, list[str]]:
    values: dict[str, Any] = {}
    faults: list[str] = []
    for row in SETTINGS:
        # indentation is meaning in YAML
        text = variables.verbatim(row.env) if row.kind == "yaml" else variables.get(row.env)
        if row.kind == "secrets":
            values["tokens_set"] = text is not None
        elif not (text and text.strip()):
            continue
        if text is not None:
            try:
                values[row.attribute] = _READERS[row.kind](row, text)
            except ValueError as fault:
                faults.append(f"{row.env} {fault}")
    if "config" in values and "config_yaml" in values:
        faults.append("GATEWAY_CONFIG and GATEWAY_CONFIG_YAML are both set: remove one of them")
    faults += _conflicts(values)
    if values.get("cache_store") == "redis" and "redis_url" not in values:
        faults.append("GATEWAY_CACHE_STORE is redis, and REDIS_URL names no server")
    misspelt, warnings = _strangers(variables)
    warnings = [*warnings, *_weak(values)]
    credentials = {}
    for provider in PROVIDERS.values():
        names = (*provider.keys, *provider.bases, *provider.any_of, *provider.account, *provider.versions)
        if variables.first(names):
            credentials[provider.name] = _credential(provider, variables, faults)
    settings = Settings(
        **values,
        variables=variables,
        credentials=credentials,
        identity=variables.identity(),
        warnings=tuple(warnings),
    )
    return settings, list(dict.fromkeys(faults + misspelt))  # several providers may share one variable


def _weak(values: Mapping[str, Any]) -> list[str]:
    """Name the variables with a token that somebody could guess, which no count of wrong keys stops."""
    admin = values.get("admin_token")
    tokens = {"GATEWAY_AUTH_TOKEN": values.get("tokens", ()), "GATEWAY_ADMIN_TOKEN": () if admin is None else (admin,)}
    return [
        f"{name} has a token of fewer than {_SAFE_TOKEN_LENGTH} characters, which can be guessed; "
        "`openssl rand -hex 32` makes a good one"
        for name, given in tokens.items()
        if any(len(token.reveal()) < _SAFE_TOKEN_LENGTH for token in given)
    ]


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """Name what does not go together."""
    faults = []
    if values.get("counters") == "redis" and "redis_url" not in values:
        faults.append("GATEWAY_COUNTERS is redis, and REDIS_URL is not set")
    if values.get("counters") == "memory" and values.get("workers", 1) > 1:
        faults.append("GATEWAY_COUNTERS is memory, which several workers (WEB_CONCURRENCY) do not share")
    if values.get("admin_token") in values.get("tokens", ()):
        faults.append("GATEWAY_ADMIN_TOKEN is one of GATEWAY_AUTH_TOKEN: who calls models must not manage keys with it")
    return faults + _oidc_conflicts(values)


def _oidc_conflicts(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if "oidc_issuer" in values and not values.get("oidc_audience") and "oidc_client_id" not in values:
        faults.append(
            "GATEWAY_OIDC_ISSUER needs GATEWAY_OIDC_AUDIENCE for callers with a JWT, else tokens made for others would "
            "be taken; or GATEWAY_OIDC_CLIENT_ID for people who sign in"
        )
    signing_in = GROUPS["People who sign in with OpenID Connect"]
    for row in (*GROUPS["Callers with a JWT"], *signing_in):
        default = getattr(Settings, row.attribute)
        if values.get(row.attribute, default) == default:
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


def _strangers(variables: Variables) -> tuple[list[str], list[str]]:
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


def fits_a_header(key: str) -> bool:
    """Whether a key can travel in a header: printable ASCII (RFC 9110, section 5.5, without its obsolete part)."""
    return re.fullmatch(r"[\x20-\x7e]+", key) is not None


def address_of(text: str) -> str:
    """Check an address and return it without a slash at the end.

    Raises:
        ValueError: says what is wrong, without repeating it, for it may hold a password.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if not host or re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError("is not an address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password")
    if "?" in text or "#" in text:
        raise ValueError("must have no query and no fragment")
    return text.rstrip("/")


def postgres_address(text: str) -> Secret:
    """Read the address of a Postgres database, in the form that `storage.Database` takes.

    Raises:
        ValueError: says what is wrong, without repeating it, for it holds a password.
    """
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("postgresql+psycopg", "postgresql", "postgres"):
        raise ValueError("must begin with postgresql+psycopg:// (postgresql:// and postgres:// mean the same)")
    parts = _store_address(f"postgresql://{rest}")
    if not parts.path.strip("/"):
        raise ValueError("names no database: postgresql+psycopg://user:password@host:5432/name")
    return Secret(f"postgresql+psycopg://{rest}")


def redis_address(text: str) -> Secret:
    """Read the address of a Redis or Valkey server.

    Raises:
        ValueError: as in `postgres_address`.
    """
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    parts = _store_address(text)
    if scheme.lower() != "unix" and re.fullmatch(r"(/[0-9]{0,5})?", parts.path, re.ASCII) is None:
        raise ValueError("must end with the number of a database, as in redis://host:6379/0")
    return Secret(f"{scheme.lower()}://{rest}")


def told(address: Secret) -> str:
    """The address of a store as a person may see it: without user, password and options."""
    parts = urlsplit(address.reveal())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _store_address(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not an address; / # @ and blanks in a password have to be written as %XX") from None
    if re.search(r"[\x00-\x20\x7f]", text) or "#" in text:
        raise ValueError("is not an address; / # @ and blanks in a password have to be written as %XX")
    if not parts.hostname and not parts.path and "host=" not in parts.query:
        raise ValueError("names no host")
    return parts


def _number(row: Setting, text: str) -> float:
    span = f"at least {row.minimum}" if row.minimum is not None else "above 0"
    span += f" and at most {row.maximum}" if row.maximum is not None else ""
    value = float(text) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else math.nan
    low_enough = row.maximum is None or value <= row.maximum
    if not ((value > 0 if row.minimum is None else value >= row.minimum) and low_enough):
        raise ValueError(f"must be a number {span}, not {text[:40]!r}")
    return value


def _integer(row: Setting, text: str) -> int:
    value = _number(row, text)
    if not value.is_integer():
        raise ValueError(f"must be a whole number, not {text[:40]!r}")
    return int(value)


def _choice(row: Setting, text: str) -> str:
    if text.lower() not in row.choices:
        raise ValueError(f"must be one of {', '.join(row.choices)}, not {text[:40]!r}")
    return text.lower()


def _path(_row: Setting, text: str) -> Path:
    if "\0" in text:
        raise ValueError("is not a path")
    return Path(text)


def _secret(_row: Setting, text: str) -> Secret:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("holds a blank or another character that an HTTP header cannot carry")
    return Secret(text)


def _secrets(row: Setting, text: str) -> tuple[Secret, ...]:
    tokens = [token for part in text.split(",") if (token := _unquoted(part))]
    if not tokens:
        raise ValueError("is set but holds no token: set it to one or more tokens, separated by commas, or remove it")
    return tuple(dict.fromkeys(_secret(row, token) for token in tokens))


def _pepper(row: Setting, text: str) -> Secret:
    if len(text) < _SHORTEST_PEPPER:
        raise ValueError(f"is too short: it can be guessed below {_SHORTEST_PEPPER} characters")
    return _secret(row, text)


def _webhook(_row: Setting, text: str) -> Secret:
    signing_key(text)
    return Secret(text)


def _names(_row: Setting, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := _unquoted(part))))


def _pairs(text: str) -> dict[str, str]:
    """Read `name=value,name=value`, as OpenTelemetry's variables have it (W3C Baggage without properties)."""
    found = {}
    for member in filter(None, (part.strip() for part in _unquoted(text).split(","))):
        name, equals, value = member.partition("=")
        if not equals or not name.strip():
            raise ValueError("must be name=value, separated by commas")
        found[name.strip()] = unquote(value.strip())
    return found


def _headers(_row: Setting, text: str) -> dict[str, Secret]:
    pairs = _pairs(text)
    for name, value in pairs.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not fits_a_header(value):
            raise ValueError("holds what an HTTP header cannot carry")
    return {name: Secret(value) for name, value in pairs.items()}


def _guarded(text: str) -> str:
    """Check an address that says whom to believe: nobody on the way may change its answer. It may have a query."""
    address, _, query = text.partition("?")
    parts = urlsplit(address_of(address))
    if not re.fullmatch(r"[\x21-\x7e]*", query):
        raise ValueError("is not an address")
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("must begin with https://, other than on this machine")
    return text


def _algorithms(row: Setting, text: str) -> tuple[str, ...]:
    for name in (names := _names(row, text)):
        if name not in ALGORITHMS:
            raise ValueError(f"names {name[:40]!r}; it can have {', '.join(ALGORITHMS)}")
    return names


def _relayed(_row: Setting, text: str) -> frozenset[str]:
    named = {name.lower() for part in text.split(",") if (name := _unquoted(part))}
    if named == {"all"}:
        return SAME_WIRE
    for name in sorted(named - SAME_WIRE):
        known = "does not take OpenAI's wire as it is" if name in PROVIDERS else "is no provider"
        every = ", ".join(sorted(SAME_WIRE))
        raise ValueError(f"names {name[:40]!r}, which {known}; it can be all, or some of {every}")
    return frozenset(named)


def _visible(_row: Setting, text: str) -> str:
    """Read what may stand in the requests of OAuth 2.0 (VSCHAR; RFC 6749, appendix A)."""
    if not fits_a_header(text):
        raise ValueError("holds a character that OAuth 2.0 does not allow")
    return text


def _scope(row: Setting, text: str) -> str:
    names = _visible(row, text).split()
    if "openid" not in names:
        raise ValueError("must have openid among its words, else there is no ID token")
    return " ".join(dict.fromkeys(names))


def _emails(row: Setting, text: str) -> tuple[str, ...]:
    """Read addresses, and domains with an `@` in front, in small letters."""
    for name in (names := tuple(name.lower() for name in _names(row, text))):
        if not re.fullmatch(r"[!-?A-~]*@[a-z0-9.-]+", name):
            raise ValueError(f"must hold ann@example.com or @example.com, not {name[:80]!r}")
    return tuple(dict.fromkeys(names))


def _origins(_row: Setting, text: str) -> tuple[str, ...]:
    origins = [origin.rstrip("/").lower() for part in text.split(",") if (origin := _unquoted(part))]
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", origin):
            raise ValueError(f"must hold origins like https://app.example.com or *, not {origin[:80]!r}")
    return tuple(dict.fromkeys(origins))


_READERS: Mapping[str, Callable[[Setting, str], Any]] = {
    "text": lambda _row, text: text,
    "url": lambda _row, text: address_of(text),
    "number": _number,
    "integer": _integer,
    "choice": _choice,
    "path": _path,
    "secret": _secret,
    "secrets": _secrets,
    "yaml": lambda _row, text: Secret(text),  # it may hold keys
    "origins": _origins,
    "pepper": _pepper,
    "webhook": _webhook,
    "names": _names,
    "headers": _headers,
    "attributes": lambda _row, text: _pairs(text),
    "issuer": lambda _row, text: _guarded(text),  # with its slash at the end, where it has one
    "keyset": lambda _row, text: _guarded(text),
    "algorithms": _algorithms,
    "visible": _visible,
    "client_secret": lambda row, text: Secret(_visible(row, text)),
    "scope": _scope,
    "emails": _emails,
    "relayed": _relayed,
    "postgres": lambda _row, text: postgres_address(text),
    "redis": lambda _row, text: redis_address(text),
}

_PROVIDERS = (
    "Every provider that LiteLLM knows has <PROVIDER>_API_KEY, and <PROVIDER>_API_BASE for an address other "
    "than its public one: GROQ_API_KEY for groq/..., OLLAMA_API_BASE for ollama/... . The vendors' own names "
    "are read too (HF_TOKEN, GOOGLE_API_KEY, OPENAI_BASE_URL). A provider that needs no key (ollama, "
    "hosted_vllm) has to be named by its address; the clouds by their variables (AWS_*, GOOGLE_*, AZURE_*)."
)


def _notes(row: Setting) -> str:
    choices = f"One of {', '.join(row.choices)}." if row.choices else ""
    least = f"At least {row.minimum}." if row.minimum is not None else ""
    most = f"At most {row.maximum}." if row.maximum is not None else ""
    return " ".join(filter(None, (row.help, choices, least, most)))


def env_example() -> str:
    """Return the whole `.env.example`."""

    def comment(text: str) -> list[str]:
        return [f"# {line}" for line in textwrap.wrap(text.replace("`", ""), 106)]

    lines = comment("Settings of the gateway. Copy this to .env and fill in what you need; the environment wins.")
    lines += ["", "# --- Providers ---", *comment(_PROVIDERS), "# OPENAI_API_KEY=", "# ANTHROPIC_API_KEY="]
    for group, rows in GROUPS.items():
        lines += ["", f"# --- {group} ---"]
        for row in rows:
            unit = f" Unit: {row.unit}." if row.unit else ""
            lines += ["", *comment(_notes(row) + unit), f"# {row.env}={row.default or ''}"]
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """Return the table of `docs/settings.md`."""
    lines = ["| Variable | Default | Unit | What it does |", "|---|---|---|---|"]
    for row in SETTINGS:
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.env}` | {default} | {row.unit} | {_notes(row)} |")
    return "\n".join(lines) + "\n"
