"""Builds the gateway from its settings: the one module that names concrete parts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.auth import Authenticator
from gateway.auth.tokens import StaticTokens
from gateway.core.pricing import Prices
from gateway.core.redaction import Redactor
from gateway.core.routing import DEMO, Catalogue, Reach
from gateway.metrics import Metrics
from gateway.pipeline import Gateway, Limits
from gateway.settings import Settings, SettingsError
from gateway.tracing import Sink, Tracer
from gateway.tracing.braintrust import Delivery
from gateway.tracing.catcher import Catcher
from gateway.tracing.console import Console
from gateway.upstream import modelmap
from gateway.upstream.failures import Failures
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import MODELS, Scripted

log = logging.getLogger(__name__)


def build(settings: Settings, *, whole_answer_s: float | None = None) -> Gateway:
    """Make a gateway. Starts nothing: no thread, no connection.

    Args:
        settings: the configuration.
        whole_answer_s: the longest that a call may take that is not streamed; None for no bound of its own.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """
    for warning in settings.warnings:
        log.warning("%s", warning)
    models = modelmap.read()
    redactor = Redactor(_secrets(settings))
    catalogue = Catalogue(
        reaches={
            name: Reach(reach.api_key, reach.api_base, reach.api_version, reach.missing)
            for name, reach in settings.credentials.items()
        },
        models=models,
        demo=frozenset(f"{DEMO}/{name}" for name in MODELS) if settings.demo_on else frozenset(),
    )
    litellm = LiteLLM(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        patch=Catcher.patch,
    )
    prices = Prices(models, _own_prices(settings))
    metrics = Metrics(catalogue, prices, redactor, settings.metrics)
    tracer = Tracer(
        [_sink(settings)],
        Catcher(),
        redactor,
        prices,
        settings.braintrust_project,
        content=settings.trace_content == "on",
    )
    return Gateway(
        catalogue=catalogue,
        upstreams={DEMO: Scripted(), "litellm": litellm},
        tracer=tracer,
        metrics=metrics,
        authenticator=Authenticator([StaticTokens(settings.tokens)]),
        limits=Limits(
            timeout_s=settings.timeout_s,
            whole_answer_s=min(settings.timeout_s, whole_answer_s or settings.timeout_s),
            keepalive_s=settings.keepalive_s,
            body_bytes=int(settings.max_body_mb * (1 << 20)),
        ),
        cors_origins=settings.cors_origins,
        preload=litellm.load if any(reach.missing is None for reach in catalogue.reaches.values()) else None,
        on_close=litellm.close,
    )


def _sink(settings: Settings) -> Sink:
    if settings.braintrust_api_key is None:
        return Console()
    return Delivery(
        settings.braintrust_api_key,
        settings.braintrust_project,
        app_url=settings.braintrust_app_url,
        api_url=settings.braintrust_api_url,
        org_name=settings.braintrust_org_name,
    )


def _secrets(settings: Settings) -> list[str]:
    known = [*settings.tokens, settings.braintrust_api_key]
    known += [credential.api_key for credential in settings.credentials.values()]
    return [secret.reveal() for secret in known if secret is not None]


def _own_prices(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    if settings.prices is None:
        return {}
    return _read_prices(settings.prices)


def _read_prices(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError([f"GATEWAY_PRICES: {path} cannot be read as JSON: {error}"]) from error
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise SettingsError([f"GATEWAY_PRICES: {path} is no object of model names and their prices"])
    return rows
