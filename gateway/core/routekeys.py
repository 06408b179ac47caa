"""The keys of a routes file that are read. LiteLLM's others are judged in `core/foreignkeys.py`.

The names are LiteLLM's (its proxy's `config.yaml`), so that a user moves by copying; what LiteLLM has no name for
stands in `routing`, `open_catalogue`, `model_info.when` and `model_info.relay`. `docs/gateway.schema.json` is made from
the rows, and a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gateway.core import policies
from gateway.core.endpoints import SERVED_MODES
from gateway.core.foreignkeys import HARMLESS_PARAMS, HARMLESS_SETTINGS, REFERENCES

JSON = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One key that is read.

    Attributes:
        kind: of `KINDS`.
        required: the map that it belongs to is nothing without it.
        choices: the only values, where there are but a few.
        inner: of a map, its keys.
        instead: values of LiteLLM's that are none of the choices, each with the one that is nearest.
    """

    name: str
    kind: str
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    inner: tuple[Key, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)


_TEXT: JSON = {"type": ["string", "number"]}
#: What a value of each kind is, as JSON Schema. A number may stand in a variable, so it may be a text.
KINDS: Mapping[str, JSON] = MappingProxyType(
    {
        "text": _TEXT,
        "flag": {"type": "boolean"},
        "number": {"type": ["number", "string"]},
        "list": {"type": "array"},
        "names": {"type": "array", "items": _TEXT},
        "keys": {"type": ["string", "number", "array"], "items": _TEXT},
        "texts": {"type": "object", "additionalProperties": _TEXT},
        "map": {"type": "object"},
        "fallbacks": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}},
        },
    }
)

#: LiteLLM's modes of a model; `endpoints.SERVED_MODES` are answered by this release.
MODES = (
    *("chat", "completion", "embedding", "image_generation", "image_edit", "audio_speech", "audio_transcription"),
    *("moderation", "moderations", "rerank", "responses", "realtime", "batch", "ocr", "search", "vector_store"),
    *("video_generation", "container"),
)
#: LiteLLM's names of strategies, and what each is here.
STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "simple-shuffle": policies.WEIGHTED,
        "least-busy": policies.LEAST_BUSY,
        "latency-based-routing": policies.LATENCY,
        "cost-based-routing": policies.COST,
    }
)
#: Those of LiteLLM's that are not here, and the nearest one that is.
NO_STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "usage-based-routing": "least-busy",
        "usage-based-routing-v2": "least-busy",
        "provider-budget-routing": "cost-based-routing",
    }
)
#: What LiteLLM calls that which a call may need of a model (`policies.NEEDS`).
ABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "supports_function_calling": "tools",
        "supports_vision": "vision",
        "supports_response_schema": "json_schema",
        "supports_audio_input": "audio",
        "supports_reasoning": "reasoning",
    }
)
#: Keys of accounts at clouds, and the variables that say the same: those count here, so both must agree.
ACCOUNTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
        "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "aws_session_token": ("AWS_SESSION_TOKEN",),
        "aws_region_name": ("AWS_REGION_NAME", "AWS_REGION"),
        "aws_profile_name": ("AWS_PROFILE",),
        "vertex_project": ("VERTEXAI_PROJECT", "VERTEX_PROJECT"),
        "vertex_location": ("VERTEXAI_LOCATION", "VERTEX_LOCATION"),
        "vertex_credentials": ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_CREDENTIALS", "VERTEX_CREDENTIALS"),
        "tenant_id": ("AZURE_TENANT_ID",),
        "client_id": ("AZURE_CLIENT_ID",),
        "client_secret": ("AZURE_CLIENT_SECRET",),
        "organization": ("OPENAI_ORGANIZATION",),
    }
)

_MEASURES = (
    r"(image_|audio_|video_|reasoning_)?token|character|((audio|video)_per_)?second|pixel|image|query|text_message"
)
_FORMS = r"(_above_\d+(k_tokens|hr|s_interval)|_flex|_priority|_balanced|_ultrafast|_batches|_cache_hit|_\d+p?|_\dk)*"
#: Names of prices, in US dollars, as LiteLLM has them (`MirroredPricingParams`, `CustomPricingLiteLLMParams`).
PRICE = re.compile(
    rf"(input|output)_cost_per_({_MEASURES}){_FORMS}"
    rf"|(explicit_)?cache_(read|creation)_input(_audio|_image)?_token_cost{_FORMS}",
    re.ASCII,
)

_VARIABLE = "A value `os.environ/NAME`, or `${NAME}` anywhere in it, is taken from that variable."
_NAMES_TRIED = "Names that are tried, in this order,"

TOP = (
    Key("model_list", "list", "The deployments, in the order in which those of one name stand.", required=True),
    Key(
        *("open_catalogue", "flag"),
        "Whether names that are not in this file are answered too, as they are without a file; true by default.",
    ),
)
ENTRY = (
    Key(
        *("model_name", "text"),
        "What callers name. Given several times, its deployments are chosen among by the name's strategy. `openai/*` "
        "stands for every name that begins so; the model then ends in `*` too.",
        required=True,
    ),
    Key("litellm_params", "map", "How the deployment is reached.", required=True),
    Key("model_info", "map", "What is known of the model; keys that are not read are notes."),
)
PARAMS = (
    Key("model", "text", "`<provider>/<model>`; the provider's name is LiteLLM's.", required=True),
    Key("custom_llm_provider", "text", "The provider, where `model` does not begin with it."),
    Key(
        *("api_base", "text"),
        "The deployment's address, http:// or https://; without it the provider's own, or that of "
        f"<PROVIDER>_API_BASE. {_VARIABLE}",
    ),
    Key("base_url", "text", "Another spelling of `api_base`."),
    Key(
        *("api_key", "keys"),
        "The deployment's key, or a list of keys, of which each makes a deployment of its own; without it that of "
        f"<PROVIDER>_API_KEY, which never goes to an api_base that is given here. {_VARIABLE}",
    ),
    Key("api_version", "text", f"The version of the provider's API, for Azure. {_VARIABLE}"),
    Key("weight", "number", "How often it is chosen beside others of its name, from 0 on; 0 is tried last."),
    Key("rpm", "number", "A weight, where no deployment of the name has `weight`; it limits nothing here."),
    Key("tpm", "number", "A weight, where none has `weight` or `rpm`; it limits nothing here."),
    Key("order", "number", "A whole number: the deployments of the lowest are tried first; those without one last."),
    Key(
        *("tags", "names"),
        "The calls that it is for, under `router_settings.enable_tag_filtering`: those with one of these tags. "
        "`default` is for all.",
    ),
    Key("timeout", "number", "Seconds until an answer must begin, or the try has failed."),
    Key("stream_timeout", "number", "Seconds until the head of a stream must be there; without it `timeout`."),
)
WHEN = (
    Key("tags", "names", "The call has one of these tags."),
    Key("headers", "texts", "The request has each of these headers; `*` in a value stands for any text."),
    Key(
        *("prompt_tokens", "map"),
        "How long the prompt is, in estimated tokens.",
        inner=(Key("from", "number", "At least so many."), Key("to", "number", "At most so many.")),
    ),
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
    Key("when", "map", "Which calls the deployment is for; without it all.", inner=WHEN),
    Key("max_input_tokens", "number", "The longest prompt that it takes, where LiteLLM's map does not know."),
    Key("supports_function_calling", "flag", "Whether it takes tools, where LiteLLM's map does not know."),
    Key("supports_vision", "flag", "Whether it takes images, likewise."),
    Key("supports_response_schema", "flag", "Whether it answers by a JSON Schema, likewise."),
    Key("supports_audio_input", "flag", "Whether it takes sound, likewise."),
    Key("supports_reasoning", "flag", "Whether it reasons, likewise."),
)
_STICKY = (
    "`key`, `user` or `header:<name>`: calls of the same key, `user` or header go to the same deployment first, as "
    "long as it answers."
)
NAMED = (
    Key("strategy", "text", "How one of the deployments is chosen.", choices=policies.STRATEGIES),
    Key("sticky", "text", _STICKY),
    Key("fallbacks", "names", f"{_NAMES_TRIED} when all deployments of this one have failed."),
    Key("context_window_fallbacks", "names", f"{_NAMES_TRIED} where the prompt was too long."),
    Key("content_policy_fallbacks", "names", f"{_NAMES_TRIED} where a content filter refused."),
)
ROUTING = (
    Key("strategy", "text", "That of every name that has none of its own.", choices=policies.STRATEGIES),
    Key("sticky", "text", f"Of every name that says nothing of its own. {_STICKY}"),
    Key("first_content_s", "number", "Seconds after which a stream without content is tried elsewhere."),
    Key("names", "map", "What is done for one name, by that name."),
)
#: Keys that LiteLLM takes in `router_settings` and in `litellm_settings`; the former count.
_SHARED = (
    Key("num_retries", "number", "Further tries after the first, before the fallbacks, 0 to 10; 2 by default."),
    Key("allowed_fails", "number", "Failures in a row that a deployment may have before it is left alone."),
    Key("max_fallbacks", "number", "How many names are tried after the first, at most; 5 by default."),
    Key("fallbacks", "fallbacks", f"By name: {_NAMES_TRIED.lower()} when all its deployments have failed."),
    Key("context_window_fallbacks", "fallbacks", f"By name: {_NAMES_TRIED.lower()} where the prompt was too long."),
    Key("content_policy_fallbacks", "fallbacks", f"By name: {_NAMES_TRIED.lower()} where a content filter refused."),
    Key("default_fallbacks", "names", f"{_NAMES_TRIED} for every name of the file that has no `fallbacks`."),
)
ROUTER = (
    Key(
        *("routing_strategy", "text"),
        "How one of a name's deployments is chosen.",
        choices=tuple(STRATEGIES),
        instead=NO_STRATEGIES,
    ),
    *_SHARED,
    Key("cooldown_time", "number", "Seconds for which a deployment is left alone; 5 by default."),
    Key("disable_cooldowns", "flag", "Never leave a deployment alone."),
    Key("timeout", "number", "The `timeout` of deployments that have none of their own."),
    Key("stream_timeout", "number", "The `stream_timeout` of deployments that have none of their own."),
    Key("enable_tag_filtering", "flag", "Whether `tags` of deployments say which calls they are for."),
    Key(
        *("model_group_alias", "map"),
        "Further names: `alias: model_name`, or `alias: {model: model_name, hidden: true}`.",
    ),
)
LITELLM = (
    *_SHARED,
    Key("request_timeout", "number", "As `router_settings.timeout`, which counts where both are given."),
)
#: The maps of settings at the top of the file, each with the keys that are read.
SECTIONS: Mapping[str, tuple[Key, ...]] = MappingProxyType(
    {"routing": ROUTING, "router_settings": ROUTER, "litellm_settings": LITELLM, "general_settings": ()}
)


def schema() -> JSON:
    """The JSON Schema (draft 2020-12) of a routes file, for editors. The gateway judges more than it can say."""
    prices = {f"^({PRICE.pattern})$": {"type": ["number", "string"], "description": "A price in US dollars."}}
    entry = _object(ENTRY)
    params = _object(PARAMS)
    params["patternProperties"] = prices
    for name, variables in ACCOUNTS.items():
        params["properties"][name] = _TEXT | {"description": f"Must be what {' or '.join(variables)} says."}
    params["properties"] |= dict.fromkeys(sorted(HARMLESS_PARAMS), True)
    entry["properties"]["litellm_params"] |= params
    entry["properties"]["model_info"] |= _object(INFO, closed=False) | {"patternProperties": prices}
    whole = _object(TOP)
    whole["properties"]["model_list"]["items"] = entry
    for section, keys in SECTIONS.items():
        made = _object(keys)
        made["properties"] |= dict.fromkeys(sorted(HARMLESS_SETTINGS.get(section, ())), True)
        whole["properties"][section] = made | {"type": ["object", "null"], "description": _SECTION_HELP[section]}
    for name in REFERENCES:
        whole["properties"]["general_settings"]["properties"][name] = {"pattern": _REFERENCE}
    whole["properties"]["litellm_settings"]["properties"]["cache"] = {"const": False}
    whole["properties"]["routing"]["properties"]["names"]["additionalProperties"] = _object(NAMED)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Routes of the gateway (gateway.yaml)",
        **whole,
    }


_REFERENCE = r"^(os\.environ/|\$\{\w+\}$)"
_SECTION_HELP = {
    "routing": "How deployments are chosen, as far as LiteLLM has no key for it.",
    "router_settings": "LiteLLM's; no other keys are accepted, and those without a description change nothing here.",
    "litellm_settings": "LiteLLM's; no other keys are accepted, and those without a description change nothing here.",
    "general_settings": "LiteLLM's; these keys change nothing here, and no other is accepted.",
}


def _object(keys: tuple[Key, ...], *, closed: bool = True) -> JSON:
    properties: JSON = {}
    for key in keys:
        properties[key.name] = {**KINDS[key.kind], "description": key.help.replace("`", "")}
        if key.choices:
            properties[key.name]["enum"] = list(key.choices)
        if key.inner:
            properties[key.name] |= _object(key.inner)
    made: JSON = {"type": "object", "properties": properties, "additionalProperties": not closed}
    if required := [key.name for key in keys if key.required]:
        made["required"] = required
    return made
