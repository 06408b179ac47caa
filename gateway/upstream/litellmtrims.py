"""What LiteLLM works out in every call although it comes out the same: a seventh of a call's CPU.

Each trim puts something equal into the place of an internal of LiteLLM's. It looks at what it replaces first, and
leaves a LiteLLM alone that has it no longer: such a call costs more, and nothing else. `tests/upstream` compares each
with what it stands for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import EnumType
from typing import Any

log = logging.getLogger(__name__)

#: Models whose facts are kept. A caller may name as many as there are words.
_MOST_MODELS = 1024
#: What LiteLLM finds where it looks for options of its own in a call that has none; the headers are None.
_PLAIN = frozenset(("extra_headers",))


def install(module: Any) -> tuple[str, ...]:
    """Apply every trim to LiteLLM.

    Returns:
        Names of those that were left out, each of which is logged.
    """
    left_out = tuple(trim.__name__.strip("_") for trim in _TRIMS if not trim(module))
    if left_out:
        log.warning("this LiteLLM is another inside: its calls cost more CPU (%s)", ", ".join(left_out))
    return left_out


class _Listed(EnumType):
    """Gives the members of an enumeration from a tuple, not one by one by their names."""

    listed: tuple[Any, ...]

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls.listed)


def _values_of_providers(module: Any) -> bool:
    """Give the providers' names quickly: LiteLLM lists all of them twice a call, by code of `enum` in Python."""
    providers: Any = getattr(module, "LlmProviders", None)
    kind: Any = type(providers)
    if kind is _Listed:
        return True
    if kind is not EnumType or "value" in providers.__members__:
        return False
    providers.listed = tuple(providers)
    for provider in providers:
        vars(provider)["value"] = provider.value
    providers.value = None  # no longer a property, so that what the member itself has is seen
    providers.__class__ = _Listed
    return True


class KnownModels:
    """Remembers what LiteLLM finds out about a model, which it looks up twice a call under seven names.

    Args:
        utils: LiteLLM's module `utils`.
        prices: gives LiteLLM's map of models, which a program may change.
    """

    def __init__(self, utils: Any, prices: Callable[[], Mapping[str, Any]]) -> None:
        self._find = utils.get_model_info_helper
        self._utils = utils
        self._prices = prices
        self._known: dict[tuple[str, str, int], dict[str, Any] | None] = {}
        self._asking: dict[str, bool] = {}

    def __call__(self, model: str, custom_llm_provider: str | None = None, **more: Any) -> Any:
        """Tell the facts (LiteLLM's `get_model_info_helper`).

        Raises:
            ValueError: LiteLLM has none; the first time it is LiteLLM's own exception.
        """
        if more or custom_llm_provider is None or self._asks(model, custom_llm_provider):
            return self._find(model=model, custom_llm_provider=custom_llm_provider, **more)
        key = (model, custom_llm_provider, len(self._prices()))
        if key not in self._known:
            if len(self._known) >= _MOST_MODELS:
                self._known.clear()
            self._known[key] = None  # what is known where this raises
            self._known[key] = dict(self._find(model=model, custom_llm_provider=custom_llm_provider))
        known = self._known[key]
        if known is None:
            raise ValueError(f"LiteLLM does not know {custom_llm_provider}/{model}")
        return dict(known)  # LiteLLM writes into it

    def _asks(self, model: str, provider: str) -> bool:
        """Whether LiteLLM asks the provider itself about its models, each time."""
        if provider not in self._asking:
            try:
                config = self._utils.ProviderConfigManager.get_provider_model_info(
                    model=model, provider=self._utils.LlmProviders(provider)
                )
            except ValueError:  # one of LiteLLM's list of others
                config = None
            self._asking[provider] = provider == "huggingface" or callable(getattr(config, "get_model_info", None))
        return self._asking[provider]


def _facts_of_models(module: Any) -> bool:
    bridge = sys.modules.get(f"{module.__name__}.responses.bridge_check")  # `litellm.responses` is a function
    find = getattr(bridge, "get_model_info_helper", None)
    if isinstance(find, KnownModels):
        return True
    if find is None or find is not getattr(module.utils, "get_model_info_helper", None):
        return False
    if not hasattr(getattr(module.utils, "ProviderConfigManager", None), "get_provider_model_info"):
        return False
    vars(bridge)["get_model_info_helper"] = KnownModels(module.utils, lambda: module.model_cost)
    return True


class PlainOptions:
    """Gives a call that has no options of LiteLLM's own a copy of what LiteLLM checked once.

    Args:
        check: LiteLLM's function, of the keyword arguments and the model.
        names: the arguments that it looks at.
    """

    def __init__(self, check: Callable[[Mapping[str, Any], str], Any], names: frozenset[str]) -> None:
        self._check = check
        self._names = names
        self._checked: Any = None

    def __call__(self, given: Mapping[str, Any], model: str) -> Any:
        """Check (LiteLLM's `_supplemental_provider_params`)."""
        if self._names & given.keys() != _PLAIN or given["extra_headers"] is not None:
            return self._check(given, model)
        if self._checked is None:
            self._checked = self._check(given, model)
        return type(self._checked)(params=self._checked.params.model_copy())


def _options(module: Any) -> bool:
    check = getattr(module.main, "_supplemental_provider_params", None)
    names = getattr(module.main, "SUPPLEMENTAL_KWARGS_KEYS", None)
    if isinstance(check, PlainOptions):
        return True
    if check is None or not isinstance(names, frozenset) or not names >= _PLAIN:
        return False
    module.main._supplemental_provider_params = PlainOptions(check, names)
    return True


_TRIMS = (_values_of_providers, _facts_of_models, _options)
