"""What becomes of a routes file that has changed, in a gateway that serves."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from gateway import logs, routes
from gateway.assembly.credentials import secrets_of
from gateway.metrics import Metrics
from gateway.offload import offload
from gateway.pipeline import Gateway
from gateway.routes import Table
from gateway.routes.catalogue import catalogue_of, needs_litellm
from gateway.routes.follower import RoutesFollower, Stamp
from gateway.settings import Settings, withdraw
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import MODELS

log = logging.getLogger(__package__)  # the name in log lines is the room's


def routes_follower(
    settings: Settings,
    gateway: Gateway,
    table: Table,
    stamp: Stamp | None,
    metrics: Metrics,
    models: Mapping[str, Mapping[str, Any]],
    litellm: LiteLLM,
) -> RoutesFollower | None:
    """What puts a changed routes file to use; None where no file is followed. Starts nothing.

    Args:
        settings: the configuration.
        gateway: gets each new catalogue.
        table: what was read of the file at the start.
        stamp: of the file before that.
        metrics: its deployments are labels there.
        models: LiteLLM's map.
        litellm: is loaded when a deployment first needs it.
    """
    if settings.config is None:
        return None
    told = set(table.warnings)

    def load_litellm() -> None:
        litellm.load()
        logs.configure(settings.log_format, settings.log_level)  # again: LiteLLM adds handlers of its own at import
        litellm.start()

    def take(table: Table) -> None:
        secrets = secrets_of(settings, table)
        gateway.redactor.learn(secrets)
        logs.learn(secrets)
        withdraw(os.environ, table.key_variables)
        changed = catalogue_of(settings, table, models, MODELS)
        if needs_litellm(changed) and not needs_litellm(gateway.catalogue):
            load_litellm()  # seconds, once; the first call would have to wait for it
        metrics.follow(changed)
        gateway.catalogue = changed
        log.info("the routes file was read again", extra={"fields": {"names": len(changed.aliases)}})
        for warning in table.warnings:
            if warning not in told:
                log.warning("%s", warning)
        told.update(table.warnings)

    return RoutesFollower(
        settings.config,
        stamp,
        table.revision,
        partial(routes.read, settings),
        take,
        metrics.routes_reloaded,
        offload,
    )
