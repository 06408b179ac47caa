"""The routes file, `gateway.yaml`: the operator's own names for deployments, in the shape of LiteLLM's `config.yaml`.

https://docs.litellm.ai/docs/proxy/configs has that shape. Every fault in the file is named at once. No fault and no
warning repeats a value: it may be a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from gateway.core import routekeys
from gateway.core.foreignkeys import Verdict, top_verdict
from gateway.core.outline import Node, Unreadable, joined, outline
from gateway.core.policies import Trying
from gateway.core.routing import Alias, Target
from gateway.routes.deployments import Deployments
from gateway.routes.reading import MOST_FAULTS, Reading
from gateway.routes.rules import Rules
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """What a routes file says; without one there are no aliases, and all names are answered.

    Attributes:
        source: how messages call the file; empty where there is none.
        aliases: by name (see `Catalogue.aliases`).
        open: whether names are answered that are not in the file.
        trying: how often a call is tried.
        secrets: the keys of the file, and what it took from variables to make them.
        key_variables: the variables that those were taken from.
        warnings: what the operator should know and need not mend.
    """

    source: str = ""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    open: bool = True
    trying: Trying = field(default_factory=Trying)
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

    @cached_property
    def revision(self) -> str:
        """16 hex digits that change with whatever the file means, keys included; empty where there is no file.

        Comments and the like are no part of it, and no key can be read from it.
        """
        if not self.source:
            return ""
        says = [(name, asdict(alias)) for name, alias in self.aliases.items()]
        text = json.dumps([says, self.open, asdict(self.trying)], default=_plain)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def demo_on(self, settings: Settings) -> bool:
        """Whether the demo models are served: under `GATEWAY_DEMO=auto` only while nothing else can be called."""
        return settings.demo_on and not (settings.demo == "auto" and self.usable)


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else sorted(value)


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
    reading = Reading(source, settings)
    try:
        table = _table(source, outline(text), reading)
    except Unreadable as error:
        raise SettingsError([f"{source}:{error.line}:{error.column}: {error}"]) from None
    if faults := reading.faults():
        more = len(faults) - MOST_FAULTS
        raise SettingsError(faults[:MOST_FAULTS] + ([f"{source}: and {more} more"] if more > 0 else []))
    return table


def _table(source: str, root: Node, reading: Reading) -> Table:
    """What the file says; of no use where the reading has found a fault."""
    for path, node in root.walk():
        for key in node.repeated:
            reading.fault(key, joined(path, key), "this key was given before")
    if root.kind != "map":
        reading.fault(root, "", "a map with model_list is expected here")
        return Table()
    sections: dict[str, Node] = {}

    def verdict(key: Node, value: Node) -> Verdict | None:
        if key.text not in routekeys.SECTIONS:
            return (
                Verdict(True, "") if key.text == "environment_variables" and _is_empty(value) else top_verdict(key.text)
            )
        if value.kind == "map":
            sections[key.text] = value
        elif not value.nothing:
            reading.fault(value, key.text, "must be a map")
        return Verdict(True, "")

    found = reading.keys(root, "", routekeys.TOP, verdict)
    flag = found.get("open_catalogue")
    is_open = flag is None or flag.flag is not False
    rules = Rules(reading, sections, is_open=is_open)
    deployments = Deployments(reading, rules.defaults, is_open=is_open)
    if (entries := found.get("model_list")) is not None:
        if not entries.items:
            reading.fault(entries, "model_list", "holds no deployment")
        for number, entry in enumerate(entries.items):
            deployments.add(entry, f"model_list[{number}]")
    aliases = rules.applied(deployments.groups, deployments.named)
    return Table(
        source,
        aliases,
        is_open,
        rules.trying,
        tuple(reading.secrets),
        frozenset(reading.key_variables),
        tuple(reading.warnings()),
    )


def _is_empty(node: Node) -> bool:
    return node.nothing or (node.kind == "map" and not node.entries)
