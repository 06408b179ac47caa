"""Which deployments answer a model name. Values in, values out: no provider is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.calls import Attempt, Deployment
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE
from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.secret import Secret

DEMO = "demo"

#: Bare names that LiteLLM's map may not list yet, and who answers them; the first provider that is set up does.
FAMILIES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"(gpt-|chatgpt-|o\d|ft:gpt-|ft:o\d)", re.ASCII), ("openai",)),
    (re.compile(r"claude-", re.ASCII), ("anthropic",)),
    (re.compile(r"gemini-", re.ASCII), ("gemini", "vertex_ai")),
)

#: Names of providers in LiteLLM's map that are another spelling of one that is called.
_SPELLINGS = {
    "bedrock_converse": "bedrock",
    "cohere_chat": "cohere_chat",
    "text-completion-openai": "openai",
    "azure_text": "azure",
    "text-completion-codestral": "codestral",
}

_LONGEST_NAME = 512
# a model that goes into a path or a URL of the provider must not be able to leave its place there
_SAFE_IN_A_PATH = re.compile(r"[A-Za-z0-9@][\w.:/@+,=~() -]*", re.ASCII)


@dataclass(frozen=True)
class Reach:
    """How a provider is reached. `missing` says what the operator has to set, or is None when nothing is."""

    api_key: Secret | None = None
    api_base: str | None = None
    api_version: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """Every model that can be named.

    Attributes:
        reaches: the providers that the configuration says something about.
        models: LiteLLM's map, model name to row (`litellm_provider`, `mode`, prices).
        demo: the demo models that are served.
    """

    reaches: Mapping[str, Reach] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    demo: frozenset[str] = frozenset()


def plan(model: str, catalogue: Catalogue, *, only: str | None = None) -> tuple[Attempt, ...]:
    """Say which deployments to try for a model name.

    Args:
        model: as the caller wrote it.
        catalogue: what there is.
        only: the one deployment that will do, `provider/model`: it keeps what the call is about.

    Returns:
        At least one attempt.

    Raises:
        ModelNotFound: nobody answers to that name.
        ProviderNotConfigured: somebody would, had the operator set a credential or an address.
    """
    found: tuple[Deployment, ...] = (_resolve(model.strip(), catalogue),)
    if only is not None and not (found := tuple(one for one in found if one.name == only)):
        raise ModelNotFound(f"The model {model!r} is not at {only} any more.", param="model")
    return tuple(Attempt(deployment) for deployment in found)


def _resolve(name: str, catalogue: Catalogue) -> Deployment:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ModelNotFound("The model name is too long or has control characters.", param="model")
    if name in catalogue.demo:
        return Deployment(DEMO, name.partition("/")[2])
    provider, slash, model = name.partition("/")
    if slash and provider in PROVIDERS and model:
        return _deployment(provider, model, catalogue)
    if slash and provider in NOT_SERVED:
        raise ModelNotFound(f"{provider} is not served here: {NOT_SERVED[provider]}", param="model")
    for candidate in _providers_of(name, catalogue):
        if candidate in PROVIDERS:
            return _deployment(candidate, name.removeprefix(candidate + "/"), catalogue)
    raise ModelNotFound(
        f"The model {name!r} does not exist here. Name one as <provider>/<model>, for example "
        "openai/gpt-4o-mini; GET /v1/models lists what can be called.",
        param="model",
    )


def _providers_of(name: str, catalogue: Catalogue) -> list[str]:
    """Who answers a name without a provider, the most wanted first."""
    for pattern, providers in FAMILIES:
        if pattern.match(name):
            return sorted(providers, key=lambda provider: not _usable(provider, catalogue))
    row = catalogue.models.get(name)
    return [provider_of(row)] if row else []


def provider_of(row: Mapping[str, Any]) -> str:
    """The provider of a row of LiteLLM's map, as it is called (`vertex_ai-language-models` is `vertex_ai`)."""
    provider = str(row.get("litellm_provider", ""))
    if provider.startswith("vertex_ai"):
        return "vertex_ai"
    return _SPELLINGS.get(provider, provider)


def is_named(provider: str, model: str, catalogue: Catalogue) -> bool:
    """Whether the catalogue itself names this model; callers may name any other that they make up."""
    if f"{provider}/{model}" in catalogue.demo:
        return True
    rows = (catalogue.models.get(name) for name in (f"{provider}/{model}", model))
    return any(row is not None and provider_of(row) == provider for row in rows)


def _usable(provider: str, catalogue: Catalogue) -> bool:
    reach = catalogue.reaches.get(provider)
    return reach is not None and reach.missing is None


def _deployment(provider: str, model: str, catalogue: Catalogue) -> Deployment:
    if provider not in SAME_WIRE and (not _SAFE_IN_A_PATH.fullmatch(model) or ".." in model or "//" in model):
        raise ModelNotFound(f"{model!r} is no model name of {provider}.", param="model")
    reach = catalogue.reaches.get(provider)
    if reach is None or reach.missing is not None:
        missing = reach.missing if reach else PROVIDERS[provider].missing(key=False, address=False)
        raise ProviderNotConfigured(f"{provider} is not configured on this gateway: {missing}.", provider=provider)
    return Deployment(provider, model, reach.api_base, reach.api_key, reach.api_version)


def listed(catalogue: Catalogue, modes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """List the model names that can be called now, each with its provider.

    Args:
        catalogue: where to look; a model is listed when its provider can be used.
        modes: LiteLLM's `mode`s that the caller's operations cover (`chat`, `responses`).
    """
    for name in sorted(catalogue.demo):
        yield name, DEMO
    seen = set()
    for name, row in catalogue.models.items():
        # prices of fine-tuned models and of a provider's regions are no names of models
        if row.get("mode") not in modes or name.startswith("ft:") or "*" in name:
            continue
        provider = provider_of(row)
        if provider not in PROVIDERS or not _usable(provider, catalogue):
            continue
        head = name.partition("/")[0]
        called = name
        if head == name and provider not in _providers_of(name, catalogue)[:1]:
            called = f"{provider}/{name}"  # the bare name would go to another provider
        elif head != name and head not in PROVIDERS:
            called = f"{provider}/{name}"
        if called not in seen:
            seen.add(called)
            yield called, provider
