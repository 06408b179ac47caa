"""The settings of a routes file: how one of a name's deployments is chosen, and what is tried when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from gateway.core import foreignkeys, routekeys
from gateway.core.foreignkeys import REFERENCES, Verdict
from gateway.core.outline import Node, joined
from gateway.core.policies import ORDERED, WEIGHTED, Policy, Trying
from gateway.core.providers import PROVIDERS
from gateway.core.routing import FAMILIES, Alias, is_model_of
from gateway.routes.deployments import HEADER, Defaults, Group
from gateway.routes.reading import Reading, is_reference

_KINDS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callbacks")
_MOST_RETRIES = 10
_LONGEST_S = 86_400
#: Of LiteLLM's fallbacks: every name that has none of its own.
_EVERY = "*"


@dataclass(frozen=True)
class _Said:
    """A value, and where it stands."""

    node: Node
    path: str


@dataclass(frozen=True)
class _Leads:
    """The names that one name leads to, and where that is said; `to` has the place of each."""

    node: Node
    path: str
    to: tuple[tuple[str, _Said], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.to)


@dataclass
class _Own:
    """What `routing.names` says of one name."""

    strategy: str | None = None
    sticky: str | None = None
    leads: dict[str, _Leads] = field(default_factory=dict)


class Rules:
    """Reads the settings, and then gives each name its policy.

    Args:
        reading: the file.
        sections: its maps of settings, by name.
        is_open: whether names are answered that are not in the file.

    Attributes:
        trying: how often a call is tried.
        defaults: for deployments that say nothing themselves.
    """

    def __init__(self, reading: Reading, sections: Mapping[str, Node], *, is_open: bool) -> None:
        self._reading = reading
        self._open = is_open
        self._said: dict[str, _Said] = {}
        self._names: dict[str, tuple[_Said, _Own]] = {}
        self._leads: dict[str, dict[str, _Leads]] = {kind: {} for kind in _KINDS}
        self._litellms = bool((router := sections.get("router_settings")) and router.entries)
        for section in ("general_settings", "litellm_settings", "router_settings"):
            if (node := sections.get(section)) is not None:
                self._section(section, node)
        self._strategy: str | None = None
        self._sticky: str | None = None
        first_content_s = self._routing(sections["routing"]) if "routing" in sections else None
        for kind in _KINDS:
            if (said := self._said.get(kind)) is not None:
                self._leads[kind] = self._mapped(said)
        self.trying = self._trying(first_content_s)
        self.defaults = Defaults(
            self._number("timeout", self._number("request_timeout", None, above=True), above=True),
            self._number("stream_timeout", None, above=True),
            bool(self._flag("enable_tag_filtering")),
        )

    # The maps of settings.

    def _section(self, section: str, node: Node) -> None:
        def verdict(key: Node, value: Node) -> Verdict:
            return self._foreign(section, key, value)

        found = self._reading.keys(node, section, routekeys.SECTIONS[section], verdict)
        for name, value in found.items():
            said = _Said(value, f"{section}.{name}")
            if (other := self._said.get(name)) is not None:
                self._reading.warn(other.node, other.path, f"has no effect: {said.path} is given too")
            self._said[name] = said

    def _foreign(self, section: str, key: Node, value: Node) -> Verdict:
        """Judge a key of LiteLLM's that is not read, by its value where that matters."""
        name, path = key.text, joined(section, key)
        if section == "general_settings" and name in REFERENCES and (is_reference(value) or value.nothing):
            return Verdict(True, REFERENCES[name])
        if name == "cache" and value.flag is False:
            return Verdict(True, "there is no cache here")
        if section == "litellm_settings" and name in _CALLBACKS:
            items = value.items if value.kind == "list" else [value]
            for number, item in enumerate(items):
                where = f"{path}[{number}]" if value.kind == "list" else path
                self._reading.warn(item, where, f"has no effect: {foreignkeys.callback_reason(item.text)}")
            return Verdict(True, "")
        return foreignkeys.settings_verdict(section, name)

    def _routing(self, node: Node) -> float | None:
        found = self._reading.keys(node, "routing", routekeys.ROUTING, lambda *_: None)
        self._strategy = found["strategy"].text if "strategy" in found else None
        self._sticky = self._stickiness(found.get("sticky"), "routing.sticky")
        for key, value in found["names"].entries if "names" in found else ():
            path = joined("routing.names", key)
            if value.kind != "map":
                self._reading.fault(value, path, "must be a map")
                continue
            said = self._reading.keys(value, path, routekeys.NAMED, lambda *_: None)
            own = _Own(
                said["strategy"].text if "strategy" in said else None,
                self._stickiness(said.get("sticky"), f"{path}.sticky"),
                {kind: self._listed(said[kind], f"{path}.{kind}") for kind in _KINDS if kind in said},
            )
            self._names[key.text] = _Said(key, path), own
        return self._reading.number(found.get("first_content_s"), "routing.first_content_s", above=True)

    def _stickiness(self, node: Node | None, path: str) -> str | None:
        text = self._reading.text(node, path)
        if node is None or text is None or text in ("key", "user"):
            return text
        kind, _, name = text.partition(":")
        if kind == "header" and HEADER.fullmatch(name):
            return f"header:{name.lower()}"
        self._reading.fault(node, path, "must be key, user or header:<name>")
        return None

    def _number(self, name: str, default: float | None, *, above: bool = False) -> float | None:
        said = self._said.get(name)
        if said is None:
            return default
        return self._reading.number(said.node, said.path, most=_LONGEST_S, above=above)

    def _whole(self, name: str, default: int, most: int) -> int:
        said = self._said.get(name)
        value = None if said is None else self._reading.whole(said.node, said.path, most=most)
        return default if value is None else value

    def _flag(self, name: str) -> bool | None:
        return said.node.flag if (said := self._said.get(name)) is not None else None

    def _trying(self, first_content_s: float | None) -> Trying:
        usual = Trying()
        # LiteLLM leaves a deployment alone when it has failed more often than that
        allowed = self._whole("allowed_fails", usual.allowed_fails - 1, 1_000_000) + 1
        cooldown_s = self._number("cooldown_time", usual.cooldown_s)
        return replace(
            usual,
            retries=self._whole("num_retries", usual.retries, _MOST_RETRIES),
            most_fallbacks=self._whole("max_fallbacks", usual.most_fallbacks, 100),
            allowed_fails=allowed,
            cooldown_s=0.0 if self._flag("disable_cooldowns") or cooldown_s is None else cooldown_s,
            first_content_s=first_content_s,
        )

    # Names that lead to names.

    def _mapped(self, said: _Said) -> dict[str, _Leads]:
        """LiteLLM's shape: a list of maps, each from a name to the names that it leads to."""
        found: dict[str, _Leads] = {}
        for number, item in enumerate(said.node.items):
            path = f"{said.path}[{number}]"
            if item.kind != "map" or not item.entries:
                self._reading.fault(item, path, "must be a map from a name to a list of names")
                continue
            for key, value in item.entries:
                where = joined(path, key)
                if value.kind != "list" or any(one.kind != "text" or one.nothing for one in value.items):
                    self._reading.fault(value, where, "must be a list of names")
                elif key.text in found:
                    self._reading.fault(key, where, "the fallbacks of this name were given before")
                else:
                    found[key.text] = replace(self._listed(value, where), node=key)
        return found

    def _listed(self, node: Node, path: str) -> _Leads:
        to = [
            (name, _Said(item, f"{path}[{number}]"))
            for number, item in enumerate(node.items)
            if (name := self._reading.text(item, f"{path}[{number}]")) is not None
        ]
        return _Leads(node, path, tuple(to))

    # What comes of it.

    def applied(self, groups: Mapping[str, Group], named: Set[str]) -> dict[str, Alias]:
        """Give each name its deployments and its policy, and check that whatever is named is there.

        Args:
            groups: what `model_list` says.
            named: all names in it, also those whose entries have faults.
        """
        names = _Names({name: (Alias(one.targets(), one.mode), one, (name,)) for name, one in groups.items()})
        self._add_aliases(names, named)
        every = self._default_fallbacks()
        said = [(name, leads) for kind in _KINDS for name, leads in self._leads[kind].items() if name != _EVERY]
        own = [(name, place) for name, (place, _) in self._names.items()]
        for name, place in [*((name, _Said(leads.node, leads.path)) for name, leads in said), *own]:
            if not names.has(name) and name not in named:
                self._reading.fault(place.node, place.path, "no model_name of this file answers to this name")
        for leads in [*(leads for _, leads in said), *self._own_leads(), *([every] if every else [])]:
            for other, place in leads.to:
                if not self._answers(other, names) and other not in named:
                    what = "no model_name of this file answers to this name"
                    more = ", and what is not in the file is written <provider>/<model>" if self._open else ""
                    self._reading.fault(place.node, place.path, what + more)
        self._warn_of_circles()
        return {
            name: replace(alias, policy=self._policy(group, of, every)) for name, (alias, group, of) in names.items()
        }

    def _own_leads(self) -> Iterator[_Leads]:
        return (leads for _, own in self._names.values() for leads in own.leads.values())

    def _add_aliases(self, names: _Names, named: Set[str]) -> None:
        said = self._said.get("model_group_alias")
        for key, value in said.node.entries if said is not None else ():
            path = joined("router_settings.model_group_alias", key)
            node = value
            if value.kind == "map":
                inside = self._reading.keys(value, path, _ALIASED, lambda *_: None)
                node = inside.get("model", value)
                if "hidden" in inside and inside["hidden"].flag:
                    self._reading.warn(inside["hidden"], f"{path}.hidden", "has no effect: the name is listed")
            name = self._reading.text(node, path) if node.kind == "text" and not node.nothing else None
            if key.text in names or key.text.endswith("*"):
                self._reading.fault(key, path, "must be a name of its own, without a star")
            elif name is None:
                if node.kind != "map":
                    self._reading.fault(node, path, "must be a name, or a map with model")
            elif not names.has(name) or name.endswith("*"):
                if name in named and not name.endswith("*"):
                    continue
                self._reading.fault(node, path, "no model_name of this file answers to this name")
            else:
                alias, group, of = names[name]
                names[key.text] = alias, group, (key.text, *of)

    def _default_fallbacks(self) -> _Leads | None:
        said, starred = self._said.get("default_fallbacks"), self._leads["fallbacks"].get(_EVERY)
        if said is None:
            return starred
        if starred is not None:
            self._reading.fault(starred.node, starred.path, f"{said.path} is given too; one of them says it")
        return self._listed(said.node, said.path)

    def _answers(self, name: str, names: _Names) -> bool:
        if name.endswith("*"):
            return False
        if name in names or names.star_of(name) is not None:
            return True
        provider, slash, model = name.partition("/")
        if not slash:
            return self._open and any(pattern.match(name) for pattern, _ in FAMILIES)
        return self._open and provider in PROVIDERS and bool(model) and is_model_of(provider, model)

    def _policy(self, group: Group, of: tuple[str, ...], every: _Leads | None) -> Policy:
        """The policy of a name, from what is said of it or else of the one that it stands for (`of`, nearest first)."""
        owns = [self._names[name][1] for name in of if name in self._names]
        router = self._said.get("routing_strategy")
        usual = WEIGHTED if self._litellms or group.weighed else ORDERED
        strategy = next((own.strategy for own in owns if own.strategy), self._strategy)
        leads = {kind: self._led(kind, of) for kind in _KINDS}
        if leads["fallbacks"] is None and every is not None:
            leads["fallbacks"] = tuple(name for name in every.names if name not in of)
        return Policy(
            strategy or (usual if router is None else routekeys.STRATEGIES[router.node.text]),
            next((own.sticky for own in owns if own.sticky), self._sticky),
            *(leads[kind] or () for kind in _KINDS),
        )

    def _led(self, kind: str, of: tuple[str, ...]) -> tuple[str, ...] | None:
        for name in of:
            if name in self._names and (own := self._names[name][1].leads.get(kind)) is not None:
                return own.names
            if (leads := self._leads[kind].get(name)) is not None:
                return leads.names
        return None

    def _warn_of_circles(self) -> None:
        edges = {name: leads for name, leads in self._leads["fallbacks"].items() if name != _EVERY}
        edges |= {name: own.leads["fallbacks"] for name, (_, own) in self._names.items() if "fallbacks" in own.leads}
        for name, leads in edges.items():
            seen: set[str] = set()
            waiting = list(leads.names)
            while waiting:
                if (one := waiting.pop()) not in seen:
                    seen.add(one)
                    waiting += edges[one].names if one in edges else ()
            if name in seen:
                self._reading.warn(leads.node, leads.path, "these lead back to the name itself, which is tried once")


class _Names(dict[str, tuple[Alias, Group, tuple[str, ...]]]):
    """The names of the file: each with its deployments, the group that they are from, and whose rules count."""

    def star_of(self, name: str) -> str | None:
        """The name with a star that stands for this one."""
        if name.endswith("*"):
            return None
        stars = (one for one in self if one.endswith("*") and name.startswith(one[:-1]) and len(name) >= len(one))
        return max(stars, key=len, default=None)

    def has(self, name: str) -> bool:
        """Whether a name is there; one that only a star stands for is from now on, to have rules of its own."""
        if name in self:
            return True
        if (star := self.star_of(name)) is None:
            return False
        alias, group, of = self[star]
        rest = name[len(star) - 1 :]
        targets = tuple(
            replace(target, model=target.model[:-1] + rest if target.model.endswith("*") else target.model)
            for target in alias.targets
        )
        self[name] = replace(alias, targets=targets), group, (name, *of)
        return True


_ALIASED = (
    routekeys.Key("model", "text", "The name that it stands for.", required=True),
    routekeys.Key("hidden", "flag", "LiteLLM's; it changes nothing here."),
)
