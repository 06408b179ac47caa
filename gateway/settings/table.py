"""Every setting: one row a variable, in the groups and the order in which people are shown them."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.settings import callers, traces
from gateway.settings.setting import Setting, seconds

GROUPS: Mapping[str, tuple[Setting, ...]] = {
    **callers.ROWS,
    **traces.ROWS,
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
        seconds("GATEWAY_TIMEOUT_S", "timeout_s", "600", "How long a call may take in all."),
        seconds(
            *("GATEWAY_FIRST_BYTE_TIMEOUT_S", "first_byte_timeout_s", "300"),
            help="How long a provider may take to begin its answer.",
        ),
        seconds(
            *("GATEWAY_IDLE_TIMEOUT_S", "idle_timeout_s", "300"),
            help="How long a provider may be silent in the middle of its answer.",
        ),
        seconds(
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
