"""The entries of `model_list`: which deployments there are, how each is reached, what it can and is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gateway.core import foreignkeys, routekeys
from gateway.core.endpoints import SERVED_MODES
from gateway.core.foreignkeys import Verdict
from gateway.core.outline import Node, joined
from gateway.core.policies import Condition
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE
from gateway.core.routing import DEMO, FAMILIES, Target, is_model_of
from gateway.routes.reaching import reach_of
from gateway.routes.reading import Reading, is_name
from gateway.secret import Secret
from gateway.settings import address_of

#: The mode of a model of which the file says none.
_USUAL_MODE = "chat"
#: What LiteLLM weighs deployments by: the first of which some deployment of the name has any.
_WEIGHTS = ("weight", "rpm", "tpm")
#: Deployments with this tag are for calls without tags too.
_FOR_ALL = "default"
#: RFC 9110, section 5.1: a field name is a token.
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Defaults:
    """What the settings of the file say for deployments that say nothing themselves. Seconds."""

    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    tag_filtering: bool = False


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        targets: one for each of its keys; their weight and order are not yet told.
        weights: what it says of `_WEIGHTS`.
        order: None where it says nothing.
    """

    targets: tuple[Target, ...]
    weights: Mapping[str, float]
    order: int | None


@dataclass
class Group:
    """The entries of one name."""

    mode: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def weighed(self) -> str | None:
        """What its deployments are weighed by, as LiteLLM's simple-shuffle does; None where nothing is said."""
        return next((name for name in _WEIGHTS if any(one.weights.get(name) for one in self.entries)), None)

    def targets(self) -> tuple[Target, ...]:
        """Every deployment, with its weight and its order; those of which no order is said come last."""
        by = self.weighed
        last = 1 + max((one.order for one in self.entries if one.order is not None), default=-1)
        found: list[Target] = []
        for one in self.entries:
            weight = 1.0 if by is None else one.weights.get(by, 0.0)
            order = last if one.order is None else one.order
            # several keys of one deployment get its share together
            found += [replace(target, weight=weight / len(one.targets), order=order) for target in one.targets]
        return tuple(found)


@dataclass(frozen=True)
class _Info:
    """What `model_info` says."""

    priced_as: tuple[str, str] | None = None
    mode: str = _USUAL_MODE
    relay: Node | None = None
    condition: Condition = field(default_factory=Condition)
    abilities: Mapping[str, bool] = field(default_factory=dict)
    most_tokens: int | None = None
    prices: Mapping[str, str] = field(default_factory=dict)


class Deployments:
    """Reads the entries one by one.

    Args:
        reading: the file.
        defaults: for what an entry does not say.
        is_open: whether names are answered that are not in the file.

    Attributes:
        groups: what was read, by name.
        named: the names of all entries, also of those that have faults.
    """

    def __init__(self, reading: Reading, defaults: Defaults, *, is_open: bool) -> None:
        self.groups: dict[str, Group] = {}
        self.named: set[str] = set()
        self._reading = reading
        self._settings = reading.settings
        self._defaults = defaults
        self._open = is_open

    def add(self, node: Node, path: str) -> None:
        """Read one entry."""
        if node.kind != "map":
            self._reading.fault(node, path, "must be a map with model_name and litellm_params")
            return
        found = self._reading.keys(node, path, routekeys.ENTRY, lambda key, _: foreignkeys.entry_verdict(key.text))
        if self._is_everything(found, path):
            return
        name = self._model_name(found.get("model_name"), f"{path}.model_name")
        info = self._info(found.get("model_info"), f"{path}.model_info")
        entry = self._params(found.get("litellm_params"), f"{path}.litellm_params", info)
        if entry is not None:
            self._check_relay(entry, info.relay, f"{path}.model_info.relay")
        if name is not None:
            self.named.add(name)
        if name is None or entry is None:
            return
        if name.endswith("*") != entry.targets[0].model.endswith("*"):
            what = "model_name and litellm_params.model must both end in *, or neither"
            self._reading.fault(found["model_name"], f"{path}.model_name", what)
        group = self.groups.setdefault(name, Group(info.mode))
        if group.mode != info.mode:
            what = "this model_name was given before, with another model_info.mode"
            self._reading.fault(found["model_name"], path, what)
        group.entries.append(entry)
        if info.mode not in SERVED_MODES and len(group.entries) == 1:
            what = f"this release does not answer mode {info.mode}, so the model is not listed"
            self._reading.warn(node, path, what)

    def _is_everything(self, found: Mapping[str, Node], path: str) -> bool:
        """Whether this is LiteLLM's entry for all models of all providers, which is no deployment."""
        name, params = found.get("model_name"), found.get("litellm_params")
        if name is None or name.text != "*" or params is None:
            return False
        said = {key.text: value.text for key, value in params.entries}
        if said != {"model": "*"}:
            return False
        if self._open:
            self._reading.warn(name, path, "has no effect: names that are not in the file are answered in any case")
        else:
            self._reading.fault(name, path, "this is what open_catalogue: true does")
        return True

    def _model_name(self, node: Node | None, path: str) -> str | None:
        name = self._reading.text(node, path)
        if node is None or name is None:
            return None
        if not is_name(name):
            what = "must have no blanks around it, no control characters and at most 256 letters"
            self._reading.fault(node, path, what)
        elif "*" in name[:-1]:
            self._reading.fault(node, path, "a star may stand at the end only")
        elif name.startswith(f"{DEMO}/"):
            self._reading.fault(node, path, f"names that begin with {DEMO}/ are the demo models'")
        else:
            return name
        return None

    def _check_relay(self, entry: Entry, asked: Node | None, path: str) -> None:
        provider = entry.targets[0].provider
        if asked is not None and asked.flag and provider not in SAME_WIRE:
            self._reading.fault(asked, path, f"{provider} takes OpenAI's wire not as it is, as relaying does")

    # What is known of the model.

    def _info(self, node: Node | None, path: str) -> _Info:
        if node is None:
            return _Info()
        found = self._reading.keys(
            node, path, routekeys.INFO, lambda key, _: _unless_price(key, foreignkeys.info_verdict)
        )
        return _Info(
            self._priced_as(found.get("base_model"), f"{path}.base_model"),
            found["mode"].text if "mode" in found else _USUAL_MODE,
            found.get("relay"),
            self._when(found.get("when"), f"{path}.when"),
            {need: bool(found[name].flag) for name, need in routekeys.ABILITIES.items() if name in found},
            self._reading.whole(found.get("max_input_tokens"), f"{path}.max_input_tokens", least=1),
            self._prices(node, path),
        )

    def _priced_as(self, node: Node | None, path: str) -> tuple[str, str] | None:
        base = self._reading.text(node, path)
        if base is None:
            return None
        provider, slash, model = base.partition("/")
        return (provider, model) if slash and provider in PROVIDERS else ("", base)

    def _prices(self, node: Node, path: str) -> dict[str, str]:
        """The prices in a map: each a decimal number in US dollars."""
        found: dict[str, str] = {}
        for name, value in node.entries:
            if routekeys.PRICE.fullmatch(name.text) is None or value.nothing:
                continue
            where = joined(path, name)
            if value.kind != "text":
                self._reading.fault(value, where, "must be a number")
            elif self._reading.number(value, where) is not None:
                found[name.text] = self._reading.text(value, where) or ""
        return found

    def _when(self, node: Node | None, path: str) -> Condition:
        if node is None:
            return Condition()
        found = self._reading.keys(node, path, routekeys.WHEN, lambda *_: None)
        headers: dict[str, str] = {}
        for name, value in found["headers"].entries if "headers" in found else ():
            where = joined(f"{path}.headers", name)
            if not HEADER.fullmatch(name.text):
                self._reading.fault(name, where, "is no name of a header")
            elif value.kind != "text" or value.nothing:
                self._reading.fault(value, where, "must be a text")
            elif (text := self._reading.text(value, where)) is not None:
                headers[name.text.lower()] = text
        bounds = self._bounds(found.get("prompt_tokens"), f"{path}.prompt_tokens")
        return Condition(frozenset(self._reading.names(found.get("tags"), f"{path}.tags")), headers, bounds)

    def _bounds(self, node: Node | None, path: str) -> tuple[int | None, int | None]:
        if node is None:
            return None, None
        found = self._reading.keys(node, path, _PROMPT_TOKENS, lambda *_: None)
        least = self._reading.whole(found.get("from"), f"{path}.from")
        most = self._reading.whole(found.get("to"), f"{path}.to")
        if least is not None and most is not None and least > most:
            self._reading.fault(node, path, "from must not be greater than to")
        return least, most

    # How it is reached.

    def _params(self, node: Node | None, path: str, info: _Info) -> Entry | None:
        if node is None:
            return None
        reading, before = self._reading, self._reading.faulty
        found = reading.keys(node, path, routekeys.PARAMS, lambda key, value: self._other(key, value, path))
        named = self._model(found.get("model"), found.get("custom_llm_provider"), path)
        base = self._base(found, path)
        keys = self._keys(found.get("api_key"), f"{path}.api_key")
        version = reading.text(found.get("api_version"), f"{path}.api_version")
        weights = self._weights(found, path)
        order = reading.whole(found.get("order"), f"{path}.order")
        condition = self._tagged(found.get("tags"), f"{path}.tags", info.condition)
        timeout_s, stream_timeout_s = (
            reading.number(found.get(name), f"{path}.{name}", above=True) for name in ("timeout", "stream_timeout")
        )
        prices = {**info.prices, **self._prices(node, path)}
        if named is None or reading.faulty > before:
            return None
        provider, model = PROVIDERS[named[0]], named[1]
        priced_as = info.priced_as
        if priced_as is not None and not priced_as[0]:
            priced_as = provider.name, priced_as[1]
        usual = self._defaults
        reach = replace(
            reach_of(reading, provider, base, keys[0] if keys else None, version, node, path),
            relay=provider.name in self._settings.relay if info.relay is None else bool(info.relay.flag),
            timeout_s=timeout_s or usual.timeout_s,
            stream_timeout_s=stream_timeout_s or (None if timeout_s else usual.stream_timeout_s),
        )
        target = Target(
            provider.name,
            model,
            reach,
            priced_as,
            condition=condition,
            abilities=info.abilities,
            most_tokens=info.most_tokens,
            prices=prices,
        )
        others = [replace(target, reach=replace(target.reach, api_key=key)) for key in keys[1:]]
        return Entry((target, *others), weights, order)

    def _other(self, key: Node, value: Node, path: str) -> Verdict | None:
        """What becomes of a key of `litellm_params` that is not read, or only compared."""
        if (variables := routekeys.ACCOUNTS.get(key.text)) is None or value.nothing:
            return _unless_price(key, foreignkeys.params_verdict)
        where = joined(path, key)
        if value.kind != "text":
            return Verdict(False, f"say it in {variables[0]}, for all deployments")
        text = self._reading.text(value, where)
        if text is None:
            return Verdict(True, "")  # the fault is noted
        if "secret" in key.text or "token" in key.text:
            self._reading.secrets.append(Secret(text))
        owner = self._settings.variables.first(variables)
        if owner is not None and owner[1] == text:
            return Verdict(True, f"{owner[0]} says the same, and is what counts")
        return Verdict(False, f"say it in {variables[0]}, for all deployments")

    def _model(self, node: Node | None, given: Node | None, path: str) -> tuple[str, str] | None:
        text = self._reading.text(node, f"{path}.model")
        owner = self._reading.text(given, f"{path}.custom_llm_provider")
        if node is None or text is None or (given is not None and owner is None):
            return None
        if given is not None and owner is not None:
            if owner not in PROVIDERS and owner not in NOT_SERVED:
                meant = self._reading.nearest(owner, PROVIDERS)
                what = f"is no provider that LiteLLM knows{f'; {meant} is meant?' if meant else ''}"
                self._reading.fault(given, f"{path}.custom_llm_provider", what)
                return None
            text = f"{owner}/{text.removeprefix(f'{owner}/')}"
        path = f"{path}.model"
        provider, slash, model = text.partition("/")
        if not slash:
            # LiteLLM knows these without their provider, and its users leave it out
            owners = next((owners for pattern, owners in FAMILIES if pattern.match(text)), ())
            provider, model = (owners[0], text) if len(owners) == 1 else ("", text)
        if text == "*":
            self._reading.fault(node, path, "what open_catalogue: true does")
        elif provider in NOT_SERVED:
            self._reading.fault(node, path, f"{provider} is not served here: {NOT_SERVED[provider]}")
        elif provider not in PROVIDERS:
            meant = self._reading.nearest(provider, PROVIDERS)
            what = (
                f"; {meant}/... is meant?" if meant else "; for any server that speaks OpenAI's wire, hosted_vllm/..."
            )
            what = what if slash else ""
            self._reading.fault(node, path, f"must be <provider>/<model>, with a provider that LiteLLM knows{what}")
        elif "*" in model[:-1] or not model or not is_model_of(provider, model.removesuffix("*") or "x"):
            self._reading.fault(node, path, f"this is no model name of {provider}")
        else:
            return provider, model
        return None

    def _base(self, found: Mapping[str, Node], path: str) -> str | None:
        if "base_url" in found and "api_base" in found:
            self._reading.fault(found["base_url"], f"{path}.base_url", "is the same as api_base, which is given too")
        name = "base_url" if "base_url" in found else "api_base"
        node = found.get(name)
        text = self._reading.text(node, f"{path}.{name}")
        try:
            return None if text is None else address_of(text)
        except ValueError as fault:
            if node is not None:
                self._reading.fault(node, f"{path}.{name}", str(fault))
            return None

    def _keys(self, node: Node | None, path: str) -> list[Secret]:
        if node is None:
            return []
        if node.kind == "text":
            given = [self._reading.key(node, path)]
        else:
            given = [self._reading.key(item, f"{path}[{number}]") for number, item in enumerate(node.items)]
        return [key for key in given if key is not None]

    def _weights(self, found: Mapping[str, Node], path: str) -> dict[str, float]:
        weights: dict[str, float] = {}
        for name in _WEIGHTS:
            value = self._reading.number(found.get(name), f"{path}.{name}")
            if value is not None:
                weights[name] = value
                if name != "weight":
                    what = "counts as a weight, where deployments are chosen by weight, and limits nothing here"
                    self._reading.warn(found[name], f"{path}.{name}", what)
        return weights

    def _tagged(self, node: Node | None, path: str, condition: Condition) -> Condition:
        tags = self._reading.names(node, path)
        if node is None:
            return condition
        if not self._defaults.tag_filtering:
            self._reading.warn(node, path, "has no effect without router_settings.enable_tag_filtering: true")
        elif _FOR_ALL in tags:
            self._reading.warn(node, path, f"with the tag {_FOR_ALL} it is for every call, whatever its tags")
        elif condition.tags:
            self._reading.fault(node, path, "model_info.when.tags is given too; one of them says it")
        else:
            return replace(condition, tags=frozenset(tags))
        return condition


#: The bounds in `model_info.when.prompt_tokens`.
_PROMPT_TOKENS = next(key.inner for key in routekeys.WHEN if key.name == "prompt_tokens")


def _unless_price(key: Node, verdict: Callable[[str], Verdict | None]) -> Verdict | None:
    """Judge a key that is not read; prices are read apart."""
    return Verdict(True, "") if routekeys.PRICE.fullmatch(key.text) else verdict(key.text)
