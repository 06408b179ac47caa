"""LiteLLM's keys of a routes file that are not read, and what becomes of each.

One that would change where calls go, what they cost or who may make them must not be ignored in silence: it is a
fault. One that has no bearing on that is a warning. The keys that are read stand in `core/routekeys.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_ROUTING = "it would change which deployment is tried, and when"
_LIMITS = "it would limit calls or what they may cost"
_TIMES = "times are set by timeout and stream_timeout, and for all calls by GATEWAY_TIMEOUT_S and its siblings"
_MONEY = "prices of that kind come from the file of GATEWAY_PRICES, or by model_info.base_model"
_ACCOUNT = "clouds and accounts are reached by their own variables (AWS_*, GOOGLE_*, AZURE_*, ...)"
_SECURITY = "it would change who may do what, or where keys go"
_REQUEST = "what a call asks for is the caller's to say"
_FOREIGN = "nothing here does that"
_OWN_STATE = "each worker has its own figures of how deployments are doing; REDIS_URL is for limits and budgets"
_ALL_NAMES = "how often is tried is said for all: router_settings.num_retries"
_TOKENS = "callers' keys are those of GATEWAY_AUTH_TOKEN, and those that are made with GATEWAY_ADMIN_TOKEN"

#: Patterns of whole names, the first that fits wins; the reason stands in the fault.
_REFUSED_PARAMS: tuple[tuple[str, str], ...] = (
    (r"\w*cost\w*|\w+_multiplier\w*|tiered_pricing|output_vector_size", _MONEY),
    (r"(i|o)tpm|(i|o)rpm|tpd|rpd|max_parallel_requests|daily_reset_time|default_api_key_[tr]pm_limit", _LIMITS),
    (r"max_budget|budget_duration|max_file_size_mb", _LIMITS),
    (r"(stream_)?timeout_by_service_tier|request_timeout|keepalive_seconds", _TIMES),
    (r"fallbacks|context_window_fallbacks|content_policy_fallbacks", "it stands in router_settings, by name"),
    (r"model_group_alias|cooldown_time|allowed_fails", "it stands in router_settings, for all deployments"),
    (
        r"tag_regex|(auto|complexity|adaptive|quality)_router_\w+|provider_affinity_header|use_chat_completions_api"
        r"|allowed_fails\w*|retry_policy",
        _ROUTING,
    ),
    (
        r"(aws|vertex|azure|gcs|s3|bedrock|watsonx|anthropic|openai|oci|sap|google)_\w+|region_name|bucket_name",
        _ACCOUNT,
    ),
    (r"token_exchange_\w+|chatgpt_auth_file|use_xai_oauth", _ACCOUNT),
    (r"headers|extra_headers|extra_body|default_headers|ssl_\w+|use_in_pass_through|use_litellm_proxy", _SECURITY),
    (r"configurable_clientside_auth_params|litellm_credential_name|guardrails|blocked", _SECURITY),
    (r"allow_client_keepalive_override|fireworks_forward_user_id|vector_store_ids|mock_\w+", _SECURITY),
    (r"additional_drop_params|allowed_openai_params|cache_control_injection_points|prompt_\w+", _REQUEST),
    (r"temperature|top_p|top_k|max_tokens|max_completion_tokens|stop|seed|user|n|stream|reasoning_effort", _REQUEST),
    (r"frequency_penalty|presence_penalty|response_format|tools|tool_choice|thinking|modify_params", _REQUEST),
    (r"model_info", "it stands beside litellm_params, not in it"),
    (r"responses_api_version|\w+_post_processing|embedding_model|index_name|vector_\w+|(milvus|valkey)_\w+", _FOREIGN),
    (r"kubernetes_pod_discovery|s3_\w+|max_retry_after", _ROUTING),
)
#: Keys of `litellm_params` without which a call is the same here.
HARMLESS_PARAMS: Mapping[str, str] = MappingProxyType(
    {
        "drop_params": "what a provider does not know is always dropped, and named in x-gateway-dropped-params",
        "merge_reasoning_content_in_choices": "answers come as the provider gave them",
        "thought_signature_in_tool_call_id": "answers come as the provider gave them",
        "litellm_trace_id": "each call has a trace of its own",
        "max_retries": _ALL_NAMES,
        "num_retries": _ALL_NAMES,
    }
)
#: Keys beside `litellm_params` that LiteLLM's own examples have there, where LiteLLM does not look at them.
_MISPLACED = frozenset({"rpm", "tpm", "weight", "order", "tags"})
#: What this release cannot honour in `model_info`, which is else free for notes.
_REFUSED_INFO: tuple[tuple[str, str], ...] = (
    (r"\w*cost\w*|\w+_multiplier\w*|tiered_pricing|ptu_\w+|pricing_provider", _MONEY),
    (r"access_windows|access_groups|team_\w+|blocked|enforce_supported_endpoints", _SECURITY),
    (r"order", "it stands in litellm_params"),
)

_NO_EFFECT = "it changes nothing here"
#: Keys of the maps of settings that change nothing here, each with the reason.
HARMLESS_SETTINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "router_settings": {
            **dict.fromkeys(("set_verbose", "debug_level", "client_ttl", "ignore_invalid_deployments"), _NO_EFFECT),
            **dict.fromkeys(("redis_url", "redis_host", "redis_port", "redis_password", "redis_db"), _OWN_STATE),
            "cache_kwargs": _OWN_STATE,
            "routing_strategy_args": "the figures that a strategy goes by are its own",
            "max_retries": "num_retries says how often is tried",
            "retry_after": "the wait before a further try grows by itself, and keeps to a provider's Retry-After",
            "enable_pre_call_checks": "whether a prompt fits is always looked at",
            "alerting_config": _NO_EFFECT,
        },
        "litellm_settings": dict.fromkeys(
            (
                *("drop_params", "set_verbose", "telemetry", "json_logs", "suppress_debug_info", "log_raw_request"),
                *("callbacks", "success_callback", "failure_callback", "service_callbacks", "langfuse_default_tags"),
                *("return_response_headers", "suppress_debug_info", "turn_on_debug", "enable_json_schema_validation"),
            ),
            _NO_EFFECT,
        ),
        "general_settings": {
            **dict.fromkeys(
                (
                    *("alerting", "alerting_threshold", "alerting_args", "alert_types", "disable_spend_logs"),
                    *("background_health_checks", "health_check_interval", "health_check_concurrency"),
                    *("health_check_details", "enable_public_model_hub", "proxy_batch_write_at"),
                    *("disable_adding_master_key_hash_to_db", "maximum_spend_logs_retention_period"),
                    *("database_connection_pool_limit", "database_connection_timeout", "coordination_redis"),
                    *("use_redis_transaction_buffer", "disable_error_logs"),
                ),
                _NO_EFFECT,
            ),
            "store_model_in_db": "models stand in this file, which is read again when it has changed",
        },
    }
)
_SETTINGS_REASONS: tuple[tuple[str, str], ...] = (
    (r"master_key", f"{_TOKENS}; take it out, or write os.environ/NAME"),
    (r"custom_auth\w*|enable_jwt_auth|litellm_jwtauth|enable_oauth2_auth", _TOKENS),
    (r"database_url", "the database is that of DATABASE_URL; take it out, or write os.environ/NAME"),
    (r"database_\w+", "the database is that of DATABASE_URL"),
    (r"turn_off_message_logging|redact_\w+", "GATEWAY_TRACE_CONTENT=off keeps prompts and answers out of traces"),
    (r"(stream_)?timeout|request_timeout|pass_through_request_timeout", _TIMES),
    (r"model_group_alias|model_alias_map", "it is router_settings.model_group_alias"),
    (r"cooldown_time|routing_strategy|disable_cooldowns|enable_tag_filtering", "it stands in router_settings"),
    (
        r"\w*fallback\w*|num_retries|max_retries|retry_\w+|\w+_retry_policy|allowed_fails\w*|routing_\w+|model_group_\w+"
        r"|enable_pre_call_checks|tag_\w+|redis_\w+|\w*affinity\w*|optional_pre_call_checks",
        _ROUTING,
    ),
    (r"cache|cache_\w+|caching_\w+", "the cache is set up by GATEWAY_CACHE and what goes with it; take it out"),
    (r"\w*budget\w*|\w*(tpm|rpm)\w*|\w*max_\w+|\w*limit\w*", _LIMITS),
    (r"ssl_\w+|allowed_\w+|\w*pass_through\w*|guardrails|user_\w+|default_(team|internal|user)_\w+", _SECURITY),
)
#: Settings that only say where something is done here, as long as they hold no value of their own.
REFERENCES: Mapping[str, str] = MappingProxyType(
    {"master_key": _TOKENS, "database_url": "the database is that of DATABASE_URL"}
)
_REFUSED_TOP: Mapping[str, str] = MappingProxyType(
    {
        "environment_variables": "variables stand in the environment, or in .env",
        "include": "a routes file is one file",
        "credential_list": _SECURITY,
        "guardrails": _SECURITY,
        "model_group_alias": "it stands in router_settings",
        **dict.fromkeys(
            (
                *("mcp_servers", "mcp_tools", "vector_store_registry", "search_tools", "files_settings"),
                *("finetune_settings", "assistant_settings", "callback_settings", "prompts", "policies", "agent_list"),
            ),
            _FOREIGN,
        ),
    }
)
#: What LiteLLM's callbacks do that is done here by itself; of any other one nothing is.
_CALLBACKS: Mapping[str, str] = MappingProxyType(
    {
        "braintrust": "every call is traced to Braintrust where BRAINTRUST_API_KEY is set",
        "prometheus": "GET /metrics always has them",
    }
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a key of LiteLLM's that is not read: a warning where it is `harmless`, else a fault."""

    harmless: bool
    reason: str


def top_verdict(name: str) -> Verdict | None:
    """Judge a key at the top of the file that is neither read nor a map of settings; None: LiteLLM has none."""
    reason = _REFUSED_TOP.get(name)
    return Verdict(False, reason) if reason else None


def entry_verdict(name: str) -> Verdict | None:
    """Judge a key of an entry of `model_list`; None where it is a stranger's."""
    return Verdict(True, "it belongs into litellm_params") if name in _MISPLACED else None


def params_verdict(name: str) -> Verdict | None:
    """Judge a key of `litellm_params`; None where LiteLLM has none of that name."""
    if (reason := HARMLESS_PARAMS.get(name)) is not None:
        return Verdict(True, reason)
    reason = _first(_REFUSED_PARAMS, name)
    return Verdict(False, reason) if reason else None


def info_verdict(name: str) -> Verdict:
    """Judge a key of `model_info`; what is no key of LiteLLM's that matters is a note, which is anybody's to make."""
    reason = _first(_REFUSED_INFO, name)
    return Verdict(False, reason) if reason else Verdict(True, "")


def settings_verdict(section: str, name: str) -> Verdict:
    """Judge a key of one of LiteLLM's maps of settings."""
    if (reason := HARMLESS_SETTINGS[section].get(name)) is not None:
        return Verdict(True, reason)
    return Verdict(False, _first(_SETTINGS_REASONS, name) or _FOREIGN)


def callback_reason(name: str) -> str:
    """Say what becomes of one of LiteLLM's callbacks."""
    return _CALLBACKS.get(name, "nothing is sent there; traces go to Braintrust, or are kept here")


def _first(rules: tuple[tuple[str, str], ...], name: str) -> str | None:
    return next((reason for pattern, reason in rules if re.fullmatch(pattern, name, re.ASCII)), None)
