"""The keys of a routes file: those that are read, and what becomes of LiteLLM's others.

The names are LiteLLM's (its proxy's `config.yaml`), so that a user moves by copying. A key of LiteLLM's that would
change where calls go, what they cost or who may make them must not be ignored in silence: it is a fault. One that has
no bearing on that is a warning. `docs/gateway.schema.json` is made from the rows, and a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gateway.core.endpoints import SERVED_MODES

JSON = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One key that is read.

    Attributes:
        kind: `text`, `flag`, `list` or `map`.
        required: the map that it belongs to is nothing without it.
        choices: the only values, where there are but a few.
    """

    name: str
    kind: str
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()


#: LiteLLM's modes of a model; `endpoints.SERVED_MODES` are answered by this release.
MODES = (
    *("chat", "completion", "embedding", "image_generation", "image_edit", "audio_speech", "audio_transcription"),
    *("moderation", "moderations", "rerank", "responses", "realtime", "batch", "ocr", "search", "vector_store"),
    *("video_generation", "container"),
)

_VARIABLE = "A value `os.environ/NAME`, or `${NAME}` anywhere in it, is taken from that variable."

TOP = (
    Key("model_list", "list", "The deployments, in the order in which those of one name are tried.", required=True),
    Key(
        *("open_catalogue", "flag"),
        "Whether names that are not in this file are answered too, as they are without a file; true by default.",
    ),
)
ENTRY = (
    Key(
        *("model_name", "text"),
        "What callers name. Given several times, its deployments are tried in file order. `openai/*` stands for every "
        "name that begins so; the model then ends in `*` too.",
        required=True,
    ),
    Key("litellm_params", "map", "How the deployment is reached.", required=True),
    Key("model_info", "map", "What is known of the model; keys other than mode, base_model and relay are notes."),
)
PARAMS = (
    Key("model", "text", "`<provider>/<model>`; the provider's name is LiteLLM's.", required=True),
    Key(
        *("api_base", "text"),
        "The deployment's address, http:// or https://; without it the provider's own, or that of "
        f"<PROVIDER>_API_BASE. {_VARIABLE}",
    ),
    Key(
        *("api_key", "text"),
        "The deployment's key; without it that of <PROVIDER>_API_KEY, which never goes to an api_base that is given "
        f"here. {_VARIABLE}",
    ),
    Key("api_version", "text", f"The version of the provider's API, for Azure. {_VARIABLE}"),
)
INFO = (
    Key("mode", "text", f"What the model does; this release answers {', '.join(SERVED_MODES)}.", choices=MODES),
    Key(
        *("base_model", "text"),
        "The model whose price counts, where the deployment's name is one of your own: `azure/gpt-4o`.",
    ),
    Key(
        *("relay", "flag"),
        "Whether calls are relayed to this deployment without LiteLLM, where it speaks the caller's wire; without it "
        "what GATEWAY_RELAY says of its provider.",
    ),
)

_ROUTING = "it would change which deployment is tried, and when"
_LIMITS = "it would limit calls or what they may cost"
_TIMES = "times are set for all calls, by GATEWAY_TIMEOUT_S, GATEWAY_FIRST_BYTE_TIMEOUT_S and GATEWAY_IDLE_TIMEOUT_S"
_MONEY = "prices come from the file of GATEWAY_PRICES, or by model_info.base_model"
_ACCOUNT = "clouds and accounts are reached by their own variables (AWS_*, GOOGLE_*, AZURE_*, ...)"
_SECURITY = "it would change who may do what, or where keys go"
_REQUEST = "what a call asks for is the caller's to say"
_FOREIGN = "nothing here does that"
_TOKENS = "who may call is set by GATEWAY_AUTH_TOKEN"

#: Patterns of whole names, the first that fits wins; the reason stands in the fault.
_REFUSED_PARAMS: tuple[tuple[str, str], ...] = (
    (r"\w*cost\w*|\w+_multiplier\w*|tiered_pricing|output_vector_size", _MONEY),
    (r"(i|o)?tpm|(i|o)?rpm|tpd|rpd|max_parallel_requests|daily_reset_time|default_api_key_[tr]pm_limit", _LIMITS),
    (r"max_budget|budget_duration|max_file_size_mb", _LIMITS),
    (r"timeout|stream_timeout|(stream_)?timeout_by_service_tier|request_timeout|keepalive_seconds", _TIMES),
    (
        r"weight|order|tags|tag_regex|fallbacks|context_window_fallbacks|content_policy_fallbacks|cooldown_time"
        r"|max_retries|num_retries|(auto|complexity|adaptive|quality)_router_\w+|provider_affinity_header"
        r"|use_chat_completions_api|allowed_fails\w*|retry_policy|model_group_alias",
        _ROUTING,
    ),
    (
        r"(aws|vertex|azure|gcs|s3|bedrock|watsonx|anthropic|openai|oci|sap|google)_\w+|region_name|bucket_name",
        _ACCOUNT,
    ),
    (r"tenant_id|client_id|client_secret|organization|token_exchange_\w+|chatgpt_auth_file|use_xai_oauth", _ACCOUNT),
    (r"headers|extra_headers|extra_body|default_headers|ssl_\w+|use_in_pass_through|use_litellm_proxy", _SECURITY),
    (r"configurable_clientside_auth_params|litellm_credential_name|guardrails|blocked", _SECURITY),
    (r"allow_client_keepalive_override|fireworks_forward_user_id|vector_store_ids|mock_\w+", _SECURITY),
    (r"custom_llm_provider", "the provider stands before the slash of `model`"),
    (r"base_url", "write it as api_base"),
    (r"additional_drop_params|allowed_openai_params|cache_control_injection_points|prompt_\w+", _REQUEST),
    (r"temperature|top_p|top_k|max_tokens|max_completion_tokens|stop|seed|user|n|stream|reasoning_effort", _REQUEST),
    (r"frequency_penalty|presence_penalty|response_format|tools|tool_choice|thinking|modify_params", _REQUEST),
    (r"model_info", "it stands beside litellm_params, not in it"),
    (r"responses_api_version|\w+_post_processing|embedding_model|index_name|vector_\w+|(milvus|valkey)_\w+", _FOREIGN),
    (r"kubernetes_pod_discovery|s3_\w+|max_retry_after", _ROUTING),
)
#: Keys of `litellm_params` without which a call is the same here.
_HARMLESS_PARAMS: Mapping[str, str] = MappingProxyType(
    {
        "drop_params": "what a provider does not know is always dropped, and named in x-gateway-dropped-params",
        "merge_reasoning_content_in_choices": "answers come as the provider gave them",
        "thought_signature_in_tool_call_id": "answers come as the provider gave them",
        "litellm_trace_id": "each call has a trace of its own",
    }
)
#: What this release cannot honour in `model_info`, which is else free for notes.
_REFUSED_INFO: tuple[tuple[str, str], ...] = (
    (r"\w*cost\w*|\w+_multiplier\w*|tiered_pricing|ptu_\w+|pricing_provider", _MONEY),
    (r"access_windows|access_groups|team_\w+|blocked|enforce_supported_endpoints", _SECURITY),
)

#: LiteLLM's other maps at the top: keys that change nothing here. Every other key in them is a fault.
_HARMLESS_SETTINGS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "router_settings": frozenset({"set_verbose", "debug_level"}),
        "litellm_settings": frozenset(
            {
                *("drop_params", "set_verbose", "telemetry", "json_logs", "suppress_debug_info", "log_raw_request"),
                *("callbacks", "success_callback", "failure_callback", "service_callbacks", "langfuse_default_tags"),
            }
        ),
        "general_settings": frozenset(
            {
                *("alerting", "alerting_threshold", "alerting_args", "alert_types", "disable_spend_logs"),
                *(
                    "background_health_checks",
                    "health_check_interval",
                    "health_check_concurrency",
                    "health_check_details",
                ),
                *("enable_public_model_hub", "disable_adding_master_key_hash_to_db", "proxy_batch_write_at"),
            }
        ),
    }
)
_SETTINGS_REASONS: tuple[tuple[str, str], ...] = (
    (r"master_key|custom_auth\w*|enable_jwt_auth|litellm_jwtauth|enable_oauth2_auth", _TOKENS),
    (r"database_\w+", "the database of this release is a file in GATEWAY_DATA_DIR"),
    (r"turn_off_message_logging|redact_\w+", "GATEWAY_TRACE_CONTENT=off keeps prompts and answers out of traces"),
    (r"(stream_)?timeout|request_timeout|pass_through_request_timeout", _TIMES),
    (
        r"\w*fallbacks\w*|num_retries|max_retries|retry_\w+|allowed_fails\w*|cooldown_time|disable_cooldowns"
        r"|routing_strategy\w*|model_group_\w+|enable_pre_call_checks|enable_tag_filtering|redis_\w+",
        _ROUTING,
    ),
    (r"\w*budget\w*|\w*(tpm|rpm)\w*|\w*max_\w+|\w*limit\w*", _LIMITS),
    (r"cache|cache_\w+", "this release has no cache"),
    (r"ssl_\w+|allowed_\w+|\w*pass_through\w*|guardrails|user_\w+", _SECURITY),
)
_REFUSED_TOP: Mapping[str, str] = MappingProxyType(
    {
        "environment_variables": "variables stand in the environment, or in .env",
        "include": "a routes file is one file",
        "credential_list": _SECURITY,
        "guardrails": _SECURITY,
        "model_group_alias": "give the same litellm_params under each model_name",
        **dict.fromkeys(
            (
                *("mcp_servers", "mcp_tools", "vector_store_registry", "search_tools", "files_settings"),
                *("finetune_settings", "assistant_settings", "callback_settings", "prompts", "policies", "agent_list"),
            ),
            _FOREIGN,
        ),
    }
)
#: LiteLLM's maps of settings at the top of the file.
SETTINGS_MAPS = tuple(_HARMLESS_SETTINGS)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a key of LiteLLM's that is not read: a warning where it is `harmless`, else a fault."""

    harmless: bool
    reason: str


def top_verdict(name: str) -> Verdict | None:
    """Judge a key at the top of the file that is neither read nor one of `SETTINGS_MAPS`; None: LiteLLM has none."""
    reason = _REFUSED_TOP.get(name)
    return Verdict(False, reason) if reason else None


def params_verdict(name: str) -> Verdict | None:
    """Judge a key of `litellm_params`; None where LiteLLM has none of that name."""
    if (reason := _HARMLESS_PARAMS.get(name)) is not None:
        return Verdict(True, reason)
    reason = _first(_REFUSED_PARAMS, name)
    return Verdict(False, reason) if reason else None


def info_verdict(name: str) -> Verdict | None:
    """Judge a key of `model_info`; None for a note, which is anybody's to make."""
    reason = _first(_REFUSED_INFO, name)
    return Verdict(False, reason) if reason else None


def settings_verdict(section: str, name: str) -> Verdict:
    """Judge a key of one of `SETTINGS_MAPS`."""
    if name in _HARMLESS_SETTINGS[section]:
        return Verdict(True, "it changes nothing here")
    return Verdict(False, _first(_SETTINGS_REASONS, name) or _FOREIGN)


def _first(rules: tuple[tuple[str, str], ...], name: str) -> str | None:
    return next((reason for pattern, reason in rules if re.fullmatch(pattern, name, re.ASCII)), None)


_TYPES: Mapping[str, Any] = {"text": ["string", "number"], "flag": "boolean", "list": "array", "map": "object"}


def schema() -> JSON:
    """The JSON Schema (draft 2020-12) of a routes file, for editors. The gateway judges more than it can say."""
    entry = _object(ENTRY)
    entry["properties"]["litellm_params"] |= _object(PARAMS)
    entry["properties"]["model_info"] |= _object(INFO, closed=False)
    whole = _object(TOP)
    whole["properties"]["model_list"]["items"] = entry
    for section, harmless in _HARMLESS_SETTINGS.items():
        whole["properties"][section] = {
            "type": ["object", "null"],
            "description": "LiteLLM's; these keys change nothing here, and no other is accepted.",
            "properties": dict.fromkeys(sorted(harmless), True),
            "additionalProperties": False,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Routes of the gateway (gateway.yaml)",
        **whole,
    }


def _object(keys: tuple[Key, ...], *, closed: bool = True) -> JSON:
    properties: JSON = {}
    for key in keys:
        properties[key.name] = {"type": _TYPES[key.kind], "description": key.help.replace("`", "")}
        if key.choices:
            properties[key.name]["enum"] = list(key.choices)
    made: JSON = {"type": "object", "properties": properties, "additionalProperties": not closed}
    if required := [key.name for key in keys if key.required]:
        made["required"] = required
    return made
