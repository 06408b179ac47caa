"""Which deployments answer a model name. Values in, values out: no provider is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from gateway.core.calls import Attempt, Deployment
from gateway.core.misnamed import meant
from gateway.core.policies import Condition, Policy, Trying
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE
from gateway.core.rights import Rights
from gateway.errors import ModelNotAllowed, ModelNotFound, ProviderNotConfigured
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

#: What names in LiteLLM's map hold that are no models but prices of pictures of one size.
_SIZE = re.compile(r"(?:^|/)(?:\d+-x-\d+|max-x-max)/", re.ASCII)

_LONGEST_NAME = 512
#: Names of the operator's that a misspelt one is compared with: what callers make up must stay cheap.
_MOST_COMPARED = 200
_MOST_RESOLVED = 4096
# a model that goes into a path or a URL of the provider must not be able to leave its place there
_SAFE_IN_A_PATH = re.compile(r"[A-Za-z0-9@][\w.:/@+,=~() -]*", re.ASCII)


class _NoSuchName(ModelNotFound):
    """Nobody answers to a name; `plan` says what was probably meant."""


@dataclass(frozen=True)
class Reach:
    """How a provider is reached.

    Attributes:
        missing: what the operator has to set, or None when nothing is.
        relay: calls on the provider's own wire are passed on without LiteLLM.
        timeout_s, stream_timeout_s: see `Deployment`.
    """

    api_key: Secret | None = None
    api_base: str | None = None
    api_version: str | None = None
    missing: str | None = None
    relay: bool = False
    timeout_s: float | None = None
    stream_timeout_s: float | None = None


@dataclass(frozen=True)
class Target:
    """One deployment of an alias.

    Attributes:
        model: the provider's name for it; where the alias' name ends in `*`, so does this, and what a caller writes in
            the place of the one star stands in the place of the other.
        priced_as: provider and model whose price counts, None where they are its own.
        weight: how often it is chosen beside others of its `order`, from 0 on; 0 is tried last.
        order: the lowest is tried first.
        condition: which calls it is for.
        abilities: what the operator says of `policies.NEEDS`; LiteLLM's map knows the rest.
        most_tokens: of its context window; None where nobody says.
        prices: its own, over those of LiteLLM's map and by that map's names; decimal numbers, in US dollars.
    """

    provider: str
    model: str
    reach: Reach
    priced_as: tuple[str, str] | None = None
    weight: float = 1.0
    order: int = 0
    condition: Condition = field(default_factory=Condition)
    abilities: Mapping[str, bool] = field(default_factory=dict)
    most_tokens: int | None = None
    prices: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def deployment(self) -> Deployment:
        """It, where its model has no star; made once.

        Raises:
            ProviderNotConfigured: it lacks something.
        """
        return self.at(self.model)

    def at(self, model: str) -> Deployment:
        """The same, of a model that a pattern stands for.

        Raises:
            ModelNotFound: the model is none of the provider's.
            ProviderNotConfigured: it lacks something.
        """
        found = _reached(self.provider, model, self.reach)
        if not self.priced_as and not self.prices:
            return found
        return replace(found, priced_as=self.priced_as, prices=self.priced[2])

    @property
    def priced(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """Whose price counts, and what stands over it, as `Prices.found` takes them."""
        provider, model = self.priced_as or (self.provider, self.model)
        return provider, model, tuple(sorted(self.prices.items()))


@dataclass(frozen=True)
class Alias:
    """A name that the operator gives to deployments.

    Attributes:
        targets: at least one, the most wanted first.
        mode: LiteLLM's mode of the model.
        policy: how one of them is chosen, and what is tried when all have failed.
    """

    targets: tuple[Target, ...]
    mode: str = "chat"
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True)
class Catalogue:
    """Every model that can be named.

    Attributes:
        reaches: the providers that the configuration says something about.
        models: LiteLLM's map, model name to row (`litellm_provider`, `mode`, prices).
        demo: the demo models that are served.
        aliases: the operator's own names, which come before all others but the demo's; one that ends in `*` stands for
            each name that begins so, and the longest that fits is taken.
        open: whether names are answered that stand neither in `aliases` nor in `demo`.
        trying: how often a call is tried.
        revision: changes with whatever the routes file says, so that what was cached under another one is not used.
    """

    reaches: Mapping[str, Reach] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    demo: frozenset[str] = frozenset()
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    open: bool = True
    trying: Trying = field(default_factory=Trying)
    revision: str = ""

    @cached_property
    def named(self) -> frozenset[tuple[str, str]]:
        """Provider and model of each deployment that an alias names in full."""
        targets = (target for alias in self.aliases.values() for target in alias.targets)
        return frozenset((target.provider, target.model) for target in targets if not target.model.endswith("*"))

    @cached_property
    def resolved(self) -> dict[str, Deployment]:
        """The names that are none of `aliases`, and what each was found to stand for; filled as they are asked for."""
        return {}

    @cached_property
    def _rows(self) -> dict[Deployment, Mapping[str, Any]]:
        """The rows that were looked up, filled as they are."""
        return {}

    @cached_property
    def asked_headers(self) -> frozenset[str]:
        """The headers of a request that some policy or condition asks about, in lower case."""
        conditions = {
            name for alias in self.aliases.values() for one in alias.targets for name in one.condition.headers
        }
        sticky = (alias.policy.sticky or "" for alias in self.aliases.values())
        return frozenset(conditions | {one.removeprefix("header:") for one in sticky if one.startswith("header:")})

    def row_of(self, deployment: Deployment) -> Mapping[str, Any]:
        """The row of LiteLLM's map that tells of a deployment's model; empty where there is none."""
        if (known := self._rows.get(deployment)) is None:
            if len(self._rows) >= _MOST_RESOLVED:  # names come from callers
                self._rows.clear()
            known = self._rows[deployment] = self._row_of(deployment)
        return known

    def _row_of(self, deployment: Deployment) -> Mapping[str, Any]:
        provider, model = deployment.priced_model
        for name in (f"{provider}/{model}", model):
            if (row := self.models.get(name)) is not None and provider_of(row) == provider:
                return row
        return {}

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """How the names begin that an alias with a star stands for, the longest first."""
        return tuple(sorted((name[:-1] for name in self.aliases if name.endswith("*")), key=len, reverse=True))


def plan(
    model: str, catalogue: Catalogue, *, only: str | None = None, rights: Rights | None = None
) -> tuple[Attempt, ...]:
    """Say which deployments to try for a model name.

    Args:
        model: as the caller wrote it.
        catalogue: what there is.
        only: the one deployment that will do, `provider/model`: it keeps what the call is about.
        rights: the caller's, so that an error can name the model that was probably meant; None names none.

    Returns:
        At least one attempt, the most wanted first. Of an alias' deployments those are left out that lack a credential
        or an address, as long as one does not.

    Raises:
        ModelNotFound: nobody answers to that name.
        ProviderNotConfigured: somebody would, had the operator set a credential or an address.
    """
    try:
        found = _attempts(model.strip(), catalogue)
    except _NoSuchName as error:
        raise ModelNotFound(error.message + _advice(model.strip(), catalogue, rights), param="model") from None
    if only is not None and not (found := tuple(one for one in found if one.deployment.name == only)):
        raise ModelNotFound(f"The model {model!r} is not at {only} any more.", param="model")
    return found


def may_call(rights: Rights, model: str, catalogue: Catalogue) -> bool:
    """Whether rights have a model: by the name that a caller wrote, or by `provider/model` that a bare name stands for.

    A name of the operator's own counts as it is: what it stands for may be changed, and is not what was allowed.
    """
    name = model.strip()
    if rights.allows_model(name):
        return True
    if len(name) > _LONGEST_NAME or alias_of(name, catalogue) is not None or not catalogue.open:
        return False
    try:
        return rights.allows_model(_resolve(name, catalogue).name)
    except (ModelNotFound, ProviderNotConfigured):
        return False


def not_allowed(model: str) -> ModelNotAllowed:
    """The error of a call for a model that the caller's rights do not have, be it there or not."""
    shown = model.strip()[:_LONGEST_NAME]
    return ModelNotAllowed(
        f"This key may not call the model {shown!r}; GET /v1/models lists those that it may.", param="model"
    )


def _attempts(name: str, catalogue: Catalogue) -> tuple[Attempt, ...]:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ModelNotFound("The model name is too long or has control characters.", param="model")
    if name in catalogue.demo:
        return (Attempt(Deployment(DEMO, name.partition("/")[2])),)
    if (found := alias_of(name, catalogue)) is not None:
        reached = deployments_of(*found)
        return tuple(Attempt(deployment, number) for number, (_, deployment) in enumerate(reached, 1))
    if name.startswith(f"{DEMO}/") and not catalogue.demo:
        raise ModelNotFound(
            "The demo models are off here: they are served while no provider is configured, or with GATEWAY_DEMO=on.",
            param="model",
        )
    if not catalogue.open:
        raise _NoSuchName(f"The model {name!r} does not exist here", param="model")
    resolved = catalogue.resolved
    if (deployment := resolved.get(name)) is None:
        deployment = _resolve(name, catalogue)
        if len(resolved) >= _MOST_RESOLVED:  # callers make names up
            resolved.clear()
        resolved[name] = deployment
    return (Attempt(deployment),)


def alias_of(name: str, catalogue: Catalogue) -> tuple[Alias, str] | None:
    """The alias that answers to a name, and what stands in the place of its star."""
    if name in catalogue.aliases and not name.endswith("*"):
        return catalogue.aliases[name], ""
    for prefix in catalogue.prefixes:
        if name.startswith(prefix) and len(name) > len(prefix):
            return catalogue.aliases[prefix + "*"], name[len(prefix) :]
    return None


def deployments_of(alias: Alias, rest: str) -> list[tuple[Target, Deployment]]:
    """The deployments of an alias that can be called, as they stand in the file.

    Args:
        alias: which.
        rest: what stands in the place of its star.

    Raises:
        ModelNotFound: with `rest` in it, the model is none of the provider's.
        ProviderNotConfigured: all of them lack something; of the first.
    """
    deployments: list[tuple[Target, Deployment]] = []
    lacking: ProviderNotConfigured | None = None
    for target in alias.targets:
        try:
            if target.model.endswith("*"):
                model = target.model[:-1] + rest
                deployments.append((target, target.at(model)))
            else:
                deployments.append((target, target.deployment))
        except ProviderNotConfigured as error:
            lacking = lacking or error
    if lacking is not None and not deployments:
        raise lacking
    return deployments


def _resolve(name: str, catalogue: Catalogue) -> Deployment:
    provider, slash, model = name.partition("/")
    if slash and provider in PROVIDERS and model:
        return _deployment(provider, model, catalogue)
    if slash and provider in NOT_SERVED:
        raise ModelNotFound(f"{provider} is not served here: {NOT_SERVED[provider]}", param="model")
    for candidate in _providers_of(name, catalogue):
        if candidate in PROVIDERS:
            return _deployment(candidate, name.removeprefix(candidate + "/"), catalogue)
    raise _NoSuchName(f"The model {name!r} does not exist here", param="model")


def _advice(name: str, catalogue: Catalogue, rights: Rights | None) -> str:
    """How the sentence goes on that says that nobody answers to a name."""
    found = None
    if rights is not None:
        own = (one for one in [*catalogue.demo, *catalogue.aliases] if not one.endswith("*"))
        may = tuple(islice((one for one in own if rights.allows_model(one)), _MOST_COMPARED))
        known = PROVIDERS if catalogue.open else ()
        found = meant(name, may, known, lambda bare: catalogue.open and bool(_providers_of(bare, catalogue)))
        found = found if found and may_call(rights, found, catalogue) else None
    example = ". Name one as <provider>/<model>, for example openai/gpt-4o-mini" if catalogue.open else ""
    return f"{f': is {found!r} meant?' if found else f'{example};'} GET /v1/models lists what can be called."


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
    if f"{provider}/{model}" in catalogue.demo or (provider, model) in catalogue.named:
        return True
    rows = (catalogue.models.get(name) for name in (f"{provider}/{model}", model))
    return any(row is not None and provider_of(row) == provider for row in rows)


def _usable(provider: str, catalogue: Catalogue) -> bool:
    reach = catalogue.reaches.get(provider)
    return reach is not None and reach.missing is None


def is_model_of(provider: str, model: str) -> bool:
    """Whether a provider may be asked for a model of that name."""
    return provider in SAME_WIRE or (
        _SAFE_IN_A_PATH.fullmatch(model) is not None and ".." not in model and "//" not in model
    )


def _deployment(provider: str, model: str, catalogue: Catalogue) -> Deployment:
    reach = catalogue.reaches.get(provider)
    return _reached(provider, model, reach or Reach(missing=PROVIDERS[provider].missing(key=False, address=False)))


def _reached(provider: str, model: str, reach: Reach) -> Deployment:
    if not is_model_of(provider, model):
        raise ModelNotFound(f"{model!r} is no model name of {provider}.", param="model")
    if reach.missing is not None:
        raise ProviderNotConfigured(
            f"{provider} is not configured on this gateway: {reach.missing} where it runs, and restart it.",
            provider=provider,
        )
    return Deployment(
        *(provider, model, reach.api_base, reach.api_key, reach.api_version),
        relay=reach.relay,
        timeout_s=reach.timeout_s,
        stream_timeout_s=reach.stream_timeout_s,
    )


def listed(catalogue: Catalogue, modes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """List the model names that can be called now, each with its provider.

    Args:
        catalogue: where to look; a model is listed when its provider can be used.
        modes: LiteLLM's `mode`s that the caller's operations cover (`chat`, `responses`).
    """
    for name in sorted(catalogue.demo):
        yield name, DEMO
    seen = set(catalogue.aliases)
    for name, alias in catalogue.aliases.items():
        usable = [target for target in alias.targets if target.reach.missing is None]
        if not usable or alias.mode not in modes:
            continue
        called_as = [name] if not name.endswith("*") else _starred(name, usable[0], catalogue, modes)
        for called in called_as:
            if called == name or called not in seen:
                seen.add(called)
                yield called, usable[0].provider
    if catalogue.open:
        yield from _listed_openly(catalogue, modes, seen)


def _known(catalogue: Catalogue, modes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The models of LiteLLM's map that are served, each with its provider."""
    for name, row in catalogue.models.items():
        # prices of fine-tuned models and of a provider's regions are no names of models
        if row.get("mode") in modes and not name.startswith("ft:") and "*" not in name and not _SIZE.search(name):
            provider = provider_of(row)
            if provider in PROVIDERS:
                yield name, provider


def _starred(name: str, target: Target, catalogue: Catalogue, modes: frozenset[str]) -> Iterator[str]:
    """The names that an alias with a star stands for, as far as LiteLLM's map knows them."""
    for known, provider in _known(catalogue, modes):
        model = known.removeprefix(f"{provider}/")
        if provider == target.provider and model.startswith(target.model[:-1]) and is_model_of(provider, model):
            called = name[:-1] + model.removeprefix(target.model[:-1])
            if alias_of(called, catalogue) == (catalogue.aliases[name], called[len(name) - 1 :]):
                yield called


def _listed_openly(catalogue: Catalogue, modes: frozenset[str], seen: set[str]) -> Iterator[tuple[str, str]]:
    for name, provider in _known(catalogue, modes):
        if not _usable(provider, catalogue):
            continue
        head = name.partition("/")[0]
        called = name
        if head == name and provider not in _providers_of(name, catalogue)[:1]:
            called = f"{provider}/{name}"  # the bare name would go to another provider
        elif head != name and head not in PROVIDERS:
            called = f"{provider}/{name}"
        if called not in seen and alias_of(called, catalogue) is None:
            seen.add(called)
            yield called, provider
