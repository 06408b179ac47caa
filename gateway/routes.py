"""The routes file, `gateway.yaml`: the operator's own names for deployments, in the shape of LiteLLM's `config.yaml`.

https://docs.litellm.ai/docs/proxy/configs has that shape. The file is read once at start, and every fault in it is
named at once. No fault and no warning repeats a value: it may be a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from gateway.core import routekeys
from gateway.core.endpoints import SERVED_MODES
from gateway.core.outline import Node, Unreadable, joined, outline
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE, Provider
from gateway.core.routekeys import Key, Verdict
from gateway.core.routing import DEMO, FAMILIES, Alias, Reach, Target, is_model_of
from gateway.core.spelling import nearest
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError, address_of, fits_a_header

_MOST_BYTES = 1 << 20
#: More of them are only counted.
_MOST_FAULTS = 100
#: The mode of a model of which the file says none.
_USUAL_MODE = "chat"

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_OS_ENVIRON = "os.environ/"

#: Variables that LiteLLM prefers to the key that it is given; what they say would go to the deployment's address.
_STRONGER = {
    **dict.fromkeys(("azure", "azure_ai", "azure_text"), ("AZURE_AD_TOKEN", "AZURE_PASSWORD")),
    **dict.fromkeys(("databricks", "databricks_agent"), ("DATABRICKS_CLIENT_SECRET",)),
}
#: Where an identity of Azure's may go: to Azure.
_AZURE_HOSTS = (".azure.com", ".azure.us", ".azure.cn")


@dataclass(frozen=True)
class Table:
    """What a routes file says; without one there are no aliases, and all names are answered.

    Attributes:
        source: how messages call the file; empty where there is none.
        aliases: by name (see `Catalogue.aliases`).
        open: whether names are answered that are not in the file.
        secrets: the keys of the file, and what it took from variables to make them.
        key_variables: the variables that those were taken from.
        warnings: what the operator should know and need not mend.
    """

    source: str = ""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    open: bool = True
    secrets: tuple[Secret, ...] = ()
    key_variables: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def targets(self) -> Iterator[tuple[str, Target]]:
        """Every deployment, with the name that it answers to."""
        return ((name, target) for name, alias in self.aliases.items() for target in alias.targets)

    @property
    def usable(self) -> bool:
        """Whether some deployment can be called."""
        return any(target.reach.missing is None for _, target in self.targets)

    def demo_on(self, settings: Settings) -> bool:
        """Whether the demo models are served: under `GATEWAY_DEMO=auto` only while nothing else can be called."""
        return settings.demo_on and not (settings.demo == "auto" and self.usable)


@dataclass(frozen=True)
class _Info:
    """What `model_info` says."""

    priced_as: tuple[str, str] | None = None
    mode: str = _USUAL_MODE
    relay: Node | None = None


def read(settings: Settings) -> Table:
    """Read the routes file that the settings name.

    Raises:
        SettingsError: it cannot be used; every fault as `file:line:column: path: what is wrong`.
    """
    if settings.config_yaml is not None:
        source, text = "GATEWAY_CONFIG_YAML", settings.config_yaml.reveal()
        if len(text) > _MOST_BYTES:
            raise SettingsError([f"{source} is larger than {_MOST_BYTES} bytes"])
    elif settings.config is not None:
        source = str(settings.config)
        try:
            with settings.config.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise SettingsError([f"{source} cannot be read: {error.strerror or error}"]) from error
        except UnicodeDecodeError as error:
            raise SettingsError([f"{source}: byte {error.start} is no UTF-8"]) from error
        if len(content) > _MOST_BYTES:
            raise SettingsError([f"{source} is larger than {_MOST_BYTES} bytes"])
    else:
        return Table()
    reader = _Reader(source, settings)
    try:
        reader.read(outline(text))
    except Unreadable as error:
        raise SettingsError([f"{source}:{error.line}:{error.column}: {error}"]) from None
    if faults := reader.faults():
        more = len(faults) - _MOST_FAULTS
        raise SettingsError(faults[:_MOST_FAULTS] + ([f"{source}: and {more} more"] if more > 0 else []))
    return reader.table()


class _Reader:
    """Judges the file; goes on after a fault, to name them all."""

    def __init__(self, source: str, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._faults: list[tuple[int, int, str]] = []
        self._warnings: list[tuple[int, int, str]] = []
        self._targets: dict[str, list[Target]] = {}
        self._modes: dict[str, str] = {}
        self._open = True
        self._secrets: list[Secret] = []
        self._key_variables: set[str] = set()

    def table(self) -> Table:
        aliases = {name: Alias(tuple(targets), self._modes[name]) for name, targets in self._targets.items()}
        return Table(
            self._source,
            aliases,
            self._open,
            tuple(self._secrets),
            frozenset(self._key_variables),
            tuple(self._in_order(self._warnings)),
        )

    def faults(self) -> list[str]:
        """Every fault, as they stand in the file."""
        return self._in_order(self._faults)

    def _in_order(self, found: list[tuple[int, int, str]]) -> list[str]:
        return [f"{self._source}:{line}:{column}: {what}" for line, column, what in sorted(found)]

    def _fault(self, node: Node, path: str, what: str) -> None:
        self._faults.append((node.line, node.column, f"{path}: {what}" if path else what))

    def _warn(self, node: Node, path: str, what: str) -> None:
        self._warnings.append((node.line, node.column, f"{path}: {what}"))

    def _nearest(self, name: str, known: Iterable[str]) -> str | None:
        # nobody reads the faults beyond, and to find what is meant takes time
        return nearest(name, known) if len(self._faults) < _MOST_FAULTS else None

    def read(self, root: Node) -> None:
        for path, node in root.walk():
            for key in node.repeated:
                self._fault(key, joined(path, key), "this key was given before")
        if root.kind != "map":
            self._fault(root, "", "a map with model_list is expected here")
            return
        found = self._keys(root, "", routekeys.TOP, self._top_verdict)
        if (flag := found.get("open_catalogue")) is not None and flag.flag is not None:
            self._open = flag.flag
        if (entries := found.get("model_list")) is not None:
            if not entries.items:
                self._fault(entries, "model_list", "holds no deployment")
            for number, entry in enumerate(entries.items):
                self._entry(entry, f"model_list[{number}]")

    def _top_verdict(self, key: Node, value: Node) -> Verdict | None:
        name = key.text
        if name not in routekeys.SETTINGS_MAPS:
            return routekeys.top_verdict(name)
        if value.kind != "map" and not value.nothing:
            self._fault(value, name, "must be a map")
        for inner, _ in value.entries:
            self._judge(inner, joined(name, inner), routekeys.settings_verdict(name, inner.text))
        return Verdict(True, "")

    def _keys(
        self, node: Node, path: str, keys: tuple[Key, ...], verdict: Callable[[Node, Node], Verdict | None]
    ) -> dict[str, Node]:
        """The values of a map that are read and of the right kind; the other keys are judged."""
        known = {key.name: key for key in keys}
        found: dict[str, Node] = {}
        for name, value in node.entries:
            where = joined(path, name)
            if (key := known.get(name.text)) is None:
                self._judge(name, where, verdict(name, value), known)
            elif value.nothing and not key.required:
                continue  # a key without a value, as a commented-out one leaves it
            elif key.kind == "flag" and value.flag is None:
                self._fault(value, where, "must be true or false")
            elif key.kind != "flag" and (value.kind != key.kind or value.nothing):
                self._fault(value, where, f"must be a {key.kind}")
            elif key.choices and value.text not in key.choices:
                self._fault(value, where, f"must be one of {', '.join(key.choices)}")
            else:
                found[name.text] = value
        for key in keys:
            if key.required and all(name.text != key.name for name, _ in node.entries):
                self._fault(node, path, f"{key.name} is missing")
        return found

    def _judge(self, key: Node, path: str, verdict: Verdict | None, known: Mapping[str, Key] | None = None) -> None:
        if verdict is None:
            meant = self._nearest(key.text, known or ())
            self._fault(key, path, f"unknown key; {meant} is meant?" if meant else "unknown key")
        elif not verdict.harmless:
            self._fault(key, path, f"not supported by this release: {verdict.reason}")
        elif verdict.reason:
            self._warn(key, path, f"has no effect: {verdict.reason}")

    def _entry(self, node: Node, path: str) -> None:
        if node.kind != "map":
            self._fault(node, path, "must be a map with model_name and litellm_params")
            return
        found = self._keys(node, path, routekeys.ENTRY, lambda _key, _value: None)
        name = self._model_name(found.get("model_name"), f"{path}.model_name")
        info = self._info(found.get("model_info"), f"{path}.model_info")
        target = self._params(found.get("litellm_params"), f"{path}.litellm_params", info.priced_as)
        mode = info.mode
        if target is not None:
            target = self._relayed(target, info.relay, f"{path}.model_info.relay")
        if name is None or target is None:
            return
        if name.endswith("*") != target.model.endswith("*"):
            what = "model_name and litellm_params.model must both end in *, or neither"
            self._fault(found["model_name"], f"{path}.model_name", what)
        if self._modes.setdefault(name, mode) != mode:
            self._fault(found["model_name"], path, "this model_name was given before, with another model_info.mode")
        self._targets.setdefault(name, []).append(target)
        if mode not in SERVED_MODES and len(self._targets[name]) == 1:
            self._warn(node, path, f"this release does not answer mode {mode}, so the model is not listed")

    def _model_name(self, node: Node | None, path: str) -> str | None:
        name = self._text(node, path)
        if node is None or name is None:
            return None
        if name != name.strip() or not name.isprintable() or len(name) > 256:
            self._fault(node, path, "must have no blanks around it, no control characters and at most 256 letters")
        elif "*" in name[:-1]:
            self._fault(node, path, "a star may stand at the end only")
        elif name.startswith(f"{DEMO}/"):
            self._fault(node, path, f"names that begin with {DEMO}/ are the demo models'")
        else:
            return name
        return None

    def _relayed(self, target: Target, asked: Node | None, path: str) -> Target:
        """Say whether the deployment's calls are relayed: the file's word counts, else the setting's."""
        relay = target.provider in self._settings.relay if asked is None else bool(asked.flag)
        if asked is not None and relay and target.provider not in SAME_WIRE:
            self._fault(asked, path, f"{target.provider} takes OpenAI's wire not as it is, as relaying does")
        return replace(target, reach=replace(target.reach, relay=relay))

    def _info(self, node: Node | None, path: str) -> _Info:
        if node is None:
            return _Info()
        found = self._keys(node, path, routekeys.INFO, lambda key, _: _note(key))
        base = self._text(found.get("base_model"), f"{path}.base_model")
        mode = found["mode"].text if "mode" in found else _USUAL_MODE
        relay = found.get("relay")
        if base is None:
            return _Info(None, mode, relay)
        provider, slash, model = base.partition("/")
        return _Info((provider, model) if slash and provider in PROVIDERS else ("", base), mode, relay)

    def _params(self, node: Node | None, path: str, priced_as: tuple[str, str] | None) -> Target | None:
        if node is None:
            return None
        found = self._keys(node, path, routekeys.PARAMS, lambda key, _: routekeys.params_verdict(key.text))
        before = len(self._faults)
        named = self._model(found.get("model"), f"{path}.model")
        base = self._base(found.get("api_base"), f"{path}.api_base")
        key = self._key(found.get("api_key"), f"{path}.api_key")
        version = self._text(found.get("api_version"), f"{path}.api_version")
        if named is None or len(self._faults) > before:
            return None
        provider, model = PROVIDERS[named[0]], named[1]
        if priced_as is not None and not priced_as[0]:
            priced_as = provider.name, priced_as[1]
        return Target(provider.name, model, self._reach(provider, base, key, version, node, path), priced_as)

    def _model(self, node: Node | None, path: str) -> tuple[str, str] | None:
        text = self._text(node, path)
        if node is None or text is None:
            return None
        provider, slash, model = text.partition("/")
        if not slash:
            # LiteLLM knows these without their provider, and its users leave it out
            owners = next((owners for pattern, owners in FAMILIES if pattern.match(text)), ())
            provider, model = (owners[0], text) if len(owners) == 1 else ("", text)
        if text == "*":
            self._fault(node, path, "what open_catalogue: true does")
        elif provider in NOT_SERVED:
            self._fault(node, path, f"{provider} is not served here: {NOT_SERVED[provider]}")
        elif provider not in PROVIDERS:
            meant = self._nearest(provider, PROVIDERS)
            what = (
                f"; {meant}/... is meant?" if meant else "; for any server that speaks OpenAI's wire, hosted_vllm/..."
            )
            what = what if slash else ""
            self._fault(node, path, f"must be <provider>/<model>, with a provider that LiteLLM knows{what}")
        elif "*" in model[:-1] or not model or not is_model_of(provider, model.removesuffix("*") or "x"):
            self._fault(node, path, f"this is no model name of {provider}")
        else:
            return provider, model
        return None

    def _base(self, node: Node | None, path: str) -> str | None:
        text = self._text(node, path)
        try:
            return None if text is None else address_of(text)
        except ValueError as fault:
            if node is not None:
                self._fault(node, path, str(fault))
            return None

    def _key(self, node: Node | None, path: str) -> Secret | None:
        names: list[str] = []
        text = self._text(node, path, names)
        if node is None or text is None:
            return None
        if not fits_a_header(text):
            self._fault(node, path, "holds a character that an HTTP header cannot carry")
        elif not names:
            self._warn(node, path, "a key stands in the file itself: better os.environ/NAME, and the key in .env")
        self._key_variables.update(names)
        parts = [value for name in names if (value := self._settings.variables.get(name))]
        self._secrets += [Secret(part) for part in dict.fromkeys((text, *parts))]
        return Secret(text)

    def _text(self, node: Node | None, path: str, names: list[str] | None = None) -> str | None:
        """A text with its variables in place; their names are added to `names`."""
        if node is None:
            return None
        text, missing = node.text, []

        def value_of(name: str) -> str:
            if names is not None:
                names.append(name)
            value = self._settings.variables.get(name)
            if not value:
                missing.append(name)
            return value or ""

        if text.startswith(_OS_ENVIRON):
            text = value_of(text.removeprefix(_OS_ENVIRON))
        elif "${" in _REFERENCE.sub("", text):
            self._fault(node, path, "a variable is written ${NAME}, with nothing else in the braces")
            return None
        else:
            text = _REFERENCE.sub(lambda match: value_of(match[1]), text)
        for name in dict.fromkeys(missing):
            self._fault(node, path, f"the variable {name[:80]!r} is not set, or is blank")
        if not missing and not text.strip():
            self._fault(node, path, "must not be blank")
            return None
        return None if missing else text

    def _reach(
        self, provider: Provider, base: str | None, key: Secret | None, version: str | None, node: Node, path: str
    ) -> Reach:
        """How a deployment is reached: what the file does not say, the provider's own variables do."""
        known = self._settings.credential(provider.name)
        version = version or known.api_version
        first = self._settings.variables.first
        identity, account = first(provider.any_of) is not None, first(provider.account) is not None
        if base is None or base == known.api_base:
            address = first(provider.bases)
            if key is not None and address is not None and base is None and provider.needs == "key":
                self._warn(node, path, f"the api_key that is given here goes to the address of {address[0]}")
            missing = provider.missing(
                key=(key or known.api_key) is not None,
                address=address is not None or base is not None,
                identity=identity,
                account=account,
            )
            return Reach(key or known.api_key, base or known.api_base, version, self._told(missing, node, path))
        # from here on nothing that belongs to another address may go to this one
        host = urlsplit(base).hostname or ""
        at_azure = provider.name in ("azure", "azure_ai", "azure_text") and host.endswith(_AZURE_HOSTS)
        if provider.needs == "cloud":
            what = f"the cloud's identity would go there; if that is meant, set {provider.bases[0]}"
            self._fault(node, f"{path}.api_base", f"not supported by this release: {what}")
        elif not at_azure and (stronger := first(_STRONGER.get(provider.name, ()))) is not None:
            what = f"LiteLLM would send what {stronger[0]} holds to this address; unset it, or set {provider.bases[0]}"
            self._fault(node, f"{path}.api_base", what)
        if key is None and known.api_key is not None and not (at_azure and identity):
            owner = first(provider.keys)
            what = f"; if {owner[0]} is meant, write api_key: os.environ/{owner[0]}" if owner else ""
            self._warn(node, path, f"no key is sent to this api_base{what}")
        # servers that speak OpenAI's wire often need no key; LiteLLM refuses to call the others without
        keyless = provider.name in SAME_WIRE or "key" not in provider.needs or (at_azure and identity)
        missing = None if key is not None or keyless else "set api_key beside the api_base of this deployment"
        return Reach(key, base, version, self._told(missing, node, path))

    def _told(self, missing: str | None, node: Node, path: str) -> str | None:
        if missing is not None:
            self._warn(node, path, f"this deployment cannot be called: {missing}")
        return missing


def _note(key: Node) -> Verdict:
    return routekeys.info_verdict(key.text) or Verdict(True, "")
