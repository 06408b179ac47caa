"""Every model that can be named, from the settings and the routes file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.providers import OPENAI_FOR_TEXT
from gateway.core.routing import DEMO, Catalogue, Reach
from gateway.routes import Table
from gateway.settings import Settings


def catalogue_of(
    settings: Settings, table: Table, models: Mapping[str, Mapping[str, Any]], demo: Iterable[str]
) -> Catalogue:
    """Make the catalogue of a start, or of a routes file that has changed.

    Args:
        settings: of the process.
        table: what the routes file says.
        models: LiteLLM's map.
        demo: the demo models, without `demo/`.
    """
    relayed = settings.relay | ({OPENAI_FOR_TEXT} if "openai" in settings.relay else frozenset())
    return Catalogue(
        reaches={
            name: Reach(one.api_key, one.api_base, one.api_version, one.missing, name in relayed)
            for name, one in settings.credentials.items()
        },
        models=models,
        demo=frozenset(f"{DEMO}/{name}" for name in demo) if table.demo_on(settings) else frozenset(),
        aliases=table.aliases,
        open=table.open,
        trying=table.trying,
        revision=table.revision,
    )


def needs_litellm(catalogue: Catalogue) -> bool:
    """Whether some call may go by LiteLLM: a provider can be used that is not relayed."""
    reaches = [target.reach for alias in catalogue.aliases.values() for target in alias.targets]
    if catalogue.open:
        reaches += catalogue.reaches.values()
    return any(reach.missing is None and not reach.relay for reach in reaches)
