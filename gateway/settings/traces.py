"""The rows that say where traces go, what they hold, and what becomes of them until they are there."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.settings.setting import Setting

ROWS: Mapping[str, tuple[Setting, ...]] = {
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
}
