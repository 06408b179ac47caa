"""Builds the gateway from its settings: the one room that names concrete parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from gateway import logs, routes
from gateway.assembly.callers import authenticator, issuer_keys, sign_in
from gateway.assembly.credentials import redactor_of, secrets_of
from gateway.assembly.following import routes_follower
from gateway.assembly.limits import limiter
from gateway.assembly.spools import (
    Delivery,
    deliveries,
    ledger_delivery,
    local_traces,
    sinks,
    spool,
    spool_folder,
)
from gateway.assembly.stores import (
    counters,
    database,
    directory,
    followed_rules,
    kept_answers,
    migrate,
    notifier,
    owned_objects,
    pepper_of,
    store_health,
    usage_rows,
)
from gateway.assembly.upstreams import upstreams_of
from gateway.cache import ResponseCache
from gateway.core import cachekey
from gateway.core.pricing import Meter, Prices
from gateway.core.routing import DEMO
from gateway.core.rules import BUDGET, LIMIT
from gateway.health import Health
from gateway.ledger import Ledger
from gateway.limits.preview import preview
from gateway.metrics import Metrics, SpoolState
from gateway.pipeline import Gateway, Limits
from gateway.prices import own_prices
from gateway.routes.catalogue import catalogue_of, needs_litellm
from gateway.routes.follower import stamp_of
from gateway.settings import Settings, bytes_of
from gateway.tracing import Tracer
from gateway.tracing.catcher import Catcher
from gateway.upstream import modelmap
from gateway.upstream.scripted import MODELS

__all__ = [
    "Delivery",
    "build",
    "database",
    "deliveries",
    "directory",
    "issuer_keys",
    "kept_answers",
    "ledger_delivery",
    "limiter",
    "migrate",
    "owned_objects",
    "prices",
    "redactor_of",
    "sign_in",
    "spool_folder",
    "usage_rows",
]

log = logging.getLogger(__name__)

#: The demo models cost nothing, which is a price.
_FREE: Mapping[str, Mapping[str, Any]] = {
    f"{DEMO}/{name}": {"litellm_provider": DEMO, "input_cost_per_token": 0, "output_cost_per_token": 0}
    for name in MODELS
}


def build(settings: Settings, *, whole_answer_s: float | None = None, workers: int | None = None) -> Gateway:
    """Make a gateway. Starts nothing: no thread, no connection.

    Args:
        settings: the configuration.
        whole_answer_s: the longest that a call may take that is not streamed; None for no bound of its own.
        workers: how many processes serve on this host; None for as many as the settings say, else one.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """
    stamp = None if settings.config is None else stamp_of(settings.config)  # before it is read
    table = routes.read(settings)
    for warning in (*settings.warnings, *table.warnings):
        log.warning("%s", warning)
    models = modelmap.read()
    redactor = redactor_of(settings, table)
    logs.know(secrets_of(settings, table))
    catalogue = catalogue_of(settings, table, models, MODELS)
    shared = database(settings)
    objects, counted = owned_objects(settings, shared), counters(settings, shared)
    upstreams = upstreams_of(settings, redactor, objects)
    meter = Meter(prices(settings))
    metrics = Metrics(catalogue, meter, settings.metrics)
    pepper_of_sessions = pepper_of(settings)
    tracer = Tracer(
        sinks(settings, metrics),
        Catcher(),
        redactor,
        meter,
        settings.braintrust_project,
        content=settings.trace_content == "on",
    )
    book = spool(settings, metrics, ledger_delivery(settings))
    used = usage_rows(settings, shared)
    ledger = Ledger(book, used, meter, redactor)
    metrics.expect_sinks([*tracer.backlogs(), *ledger.backlogs()])
    metrics.watch_spools(
        lambda: [
            SpoolState(name, one.waiting_bytes, one.oldest_s)
            for name, one in (*tracer.backlogs().items(), *ledger.backlogs().items())
        ]
    )
    rules, notices, keys = followed_rules(settings), notifier(settings, shared), issuer_keys(settings)
    holds = limiter(
        *(settings, counted, meter, metrics, models),
        *(rules, used, notices, workers or settings.workers or 1),
    )
    gateway = Gateway(
        catalogue=catalogue,
        upstreams=upstreams.by_provider,
        objects=objects,
        counters=counted,
        limiter=holds,
        standings=holds,
        stores=store_health(settings, shared, counted),
        health=Health(counted, meter.cost),
        previews={
            "limits": partial(preview, holds, LIMIT),
            "budget": partial(preview, holds, BUDGET),
            "cache": lambda call, planned: (
                gateway.cache.look(call, planned, gateway.catalogue.revision) if gateway.cache is not None else None
            ),
        },
        tracer=tracer,
        ledger=ledger,
        metrics=metrics,
        meter=meter,
        usage_cost=settings.usage_cost == "on",
        authenticator=authenticator(settings, keys),
        directory=directory(settings, shared),
        sign_in=sign_in(settings, keys, shared),
        rules=rules,
        notifier=notices,
        cache=ResponseCache(
            kept_answers(settings),
            metrics,
            use=cachekey.NEVER if settings.cache == "off" else settings.cache,
            ttl_s=settings.cache_ttl_s,
            room_bytes=bytes_of(settings.cache_mb),
            largest_bytes=bytes_of(settings.cache_largest_mb),
            silence_s=settings.keepalive_s,
        ),
        redactor=redactor,
        limits=Limits(
            timeout_s=settings.timeout_s,
            whole_answer_s=min(settings.timeout_s, whole_answer_s or settings.timeout_s),
            keepalive_s=settings.keepalive_s,
            body_bytes=bytes_of(settings.max_body_mb),
            upload_bytes=bytes_of(settings.max_upload_mb),
            upload_folder=settings.data_dir / "uploads",
        ),
        cors_origins=settings.cors_origins,
        session_key=(lambda: pepper_of_sessions().seal) if settings.ui == "on" else None,
        local_traces=local_traces(settings),
        shown_settings=settings.shown(),
        preload=upstreams.litellm.load if needs_litellm(catalogue) else None,
        on_close=upstreams.close,
    )

    gateway.routes = routes_follower(settings, gateway, table, stamp, metrics, models, upstreams.litellm)
    return gateway


def prices(settings: Settings) -> Prices:
    """What models cost: the operator's prices, and LiteLLM's.

    Raises:
        SettingsError: the operator's file cannot be used.
    """
    return Prices({**modelmap.read(), **_FREE}, own_prices(settings))
