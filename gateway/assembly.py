"""Builds the gateway from its settings: the one module that names concrete parts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import logs, routes
from gateway.auth import Authenticator, Verifier, pepper
from gateway.auth.keys import VirtualKeys
from gateway.auth.tokens import StaticTokens
from gateway.cache import ResponseCache
from gateway.cache.stores import PATIENCE_S as CACHE_PATIENCE_S
from gateway.core import cachekey
from gateway.core.keys import Pepper
from gateway.core.pricing import Meter, Prices
from gateway.core.providers import OPENAI_FOR_TEXT
from gateway.core.redaction import Redactor
from gateway.core.routing import DEMO, Catalogue, Reach
from gateway.metrics import Metrics, SpoolState
from gateway.offload import rest, stop_threads
from gateway.pipeline import Gateway, Limits
from gateway.routes import Table
from gateway.settings import Settings, SettingsError
from gateway.storage.health import StoreHealth
from gateway.tracing import Sink, Tracer
from gateway.tracing.braintrust import Braintrust
from gateway.tracing.catcher import Catcher
from gateway.tracing.console import Console
from gateway.tracing.delivery import Counts, Destination
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from gateway.upstream import modelmap
from gateway.upstream.counting import Counting
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import MODELS, Scripted, count
from gateway.upstream.stored import StoredResponses

if TYPE_CHECKING:
    from gateway.notify import Notifier
    from gateway.storage.answers import Answers
    from gateway.storage.counters import Counters
    from gateway.storage.database import Database
    from gateway.storage.directory import Directory
    from gateway.storage.followed import FollowedRules
    from gateway.storage.owned import OwnedObjects
    from gateway.tracing.search import Search

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: A caller waits for it, unlike for traces.
_OBJECTS_PATIENCE_S = 2.0
#: As long as this may the caller's key be looked up; readers hardly ever wait.
_LOOKUP_PATIENCE_S = 1.0

#: The demo models cost nothing, which is a price.
_FREE: Mapping[str, Mapping[str, Any]] = {
    f"{DEMO}/{name}": {"litellm_provider": DEMO, "input_cost_per_token": 0, "output_cost_per_token": 0}
    for name in MODELS
}


def build(settings: Settings, *, whole_answer_s: float | None = None) -> Gateway:
    """Make a gateway. Starts nothing: no thread, no connection.

    Args:
        settings: the configuration.
        whole_answer_s: the longest that a call may take that is not streamed; None for no bound of its own.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """
    table = routes.read(settings)
    for warning in (*settings.warnings, *table.warnings):
        log.warning("%s", warning)
    models = modelmap.read()
    redactor = redactor_of(settings, table)
    logs.know(_secrets_of(settings, table))
    relayed = settings.relay | ({OPENAI_FOR_TEXT} if "openai" in settings.relay else frozenset())
    catalogue = Catalogue(
        reaches={
            name: Reach(reach.api_key, reach.api_base, reach.api_version, reach.missing, name in relayed)
            for name, reach in settings.credentials.items()
        },
        models=models,
        demo=frozenset(f"{DEMO}/{name}" for name in MODELS) if table.demo_on(settings) else frozenset(),
        aliases=table.aliases,
        open=table.open,
    )
    litellm = LiteLLM(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        silence_s=settings.keepalive_s,
        patch=Catcher.patch,
    )
    shared = database(settings)
    objects, counted = owned_objects(settings, shared), counters(settings, shared)
    direct = Direct(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        silence_s=settings.keepalive_s,
    )

    def close_connections() -> None:
        litellm.close()
        direct.close()

    meter = Meter(Prices({**models, **_FREE}, own_prices(settings)))
    metrics = Metrics(catalogue, meter, settings.metrics)
    pepper_of_sessions = pepper_of(settings)
    tracer = Tracer(
        _sinks(settings, metrics),
        Catcher(),
        redactor,
        meter,
        settings.braintrust_project,
        content=settings.trace_content == "on",
    )
    metrics.expect_sinks(list(tracer.backlogs()))
    metrics.watch_spools(
        lambda: [SpoolState(name, one.waiting_bytes, one.oldest_s) for name, one in tracer.backlogs().items()]
    )
    reaches = [target.reach for _, target in table.targets] + (list(catalogue.reaches.values()) if table.open else [])
    needed = any(reach.missing is None and not reach.relay for reach in reaches)
    return Gateway(
        catalogue=catalogue,
        upstreams={
            DEMO: StoredResponses(Lanes(Counting(count), Scripted()), objects),
            "litellm": StoredResponses(Lanes(direct, Counting(litellm.count), litellm), objects),
        },
        objects=objects,
        counters=counted,
        stores=_health(settings, shared, counted),
        tracer=tracer,
        metrics=metrics,
        authenticator=authenticator(settings),
        directory=directory(settings, shared),
        rules=followed_rules(settings),
        cache=ResponseCache(
            kept_answers(settings),
            metrics,
            use=cachekey.NEVER if settings.cache == "off" else settings.cache,
            ttl_s=settings.cache_ttl_s,
            room_bytes=_bytes(settings.cache_mb),
            largest_bytes=_bytes(settings.cache_largest_mb),
            silence_s=settings.keepalive_s,
        ),
        notifier=notifier(settings, shared),
        redactor=redactor,
        limits=Limits(
            timeout_s=settings.timeout_s,
            whole_answer_s=min(settings.timeout_s, whole_answer_s or settings.timeout_s),
            keepalive_s=settings.keepalive_s,
            body_bytes=int(settings.max_body_mb * (1 << 20)),
        ),
        cors_origins=settings.cors_origins,
        session_key=(lambda: pepper_of_sessions().seal) if settings.ui == "on" else None,
        local_traces=_local_traces(settings),
        shown_settings=settings.shown(),
        preload=litellm.load if needed else None,
        on_close=close_connections,
    )


@dataclass(frozen=True)
class Delivery:
    """A place that traces are delivered to.

    Attributes:
        sink: its name.
        folder: of the spool that they wait in.
        place: where rows go whose caller names no place of its own; None leaves it to the destination.
    """

    sink: str
    folder: Path
    destination: Destination
    cap_bytes: int
    place: JSON | None = None

    def sender(self, counts: Counts | None = None) -> Sender:
        """What delivers the folder."""
        return Sender(self.folder, self.destination, name=self.sink, cap_bytes=self.cap_bytes, counts=counts)


def spool_folder(settings: Settings) -> Path:
    """The folder that has a folder for each destination."""
    return settings.data_dir / "spool"


def deliveries(settings: Settings) -> list[Delivery]:
    """Say where the traces of this configuration are delivered; the same for the gateway and for its commands."""
    cap_bytes = int(settings.spool_mb * (1 << 20))
    found: list[Delivery] = []
    if (key := settings.braintrust_api_key) is not None:
        project = settings.braintrust_project
        where = (settings.braintrust_app_url, settings.braintrust_api_url, settings.braintrust_org_name)
        name = hashlib.sha256("\n".join((*(part or "" for part in where), key.reveal())).encode()).hexdigest()[:16]
        folder = spool_folder(settings) / f"braintrust-{name}"
        braintrust = Braintrust(key, project, *where)
        found.append(Delivery("braintrust", folder, braintrust, cap_bytes, {"project_name": project}))
    if (url := settings.otlp_url) is not None:
        from gateway.tracing.otlp import OTLP  # noqa: PLC0415  # as below

        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        resource = {**settings.otel_resource, "service.name": settings.otel_service_name}
        collector = OTLP(
            url,
            settings.otlp_headers,
            resource,
            content=settings.otel_content == "true",
            compressed=settings.otlp_compression == "gzip",
        )
        found.append(Delivery("otlp", spool_folder(settings) / f"otlp-{name}", collector, cap_bytes))
    if settings.traces_kept_here:
        from gateway.storage.database import Database  # noqa: PLC0415  # slow, and not every command needs it
        from gateway.tracing.local import LocalTraces  # noqa: PLC0415

        local = LocalTraces(
            Database(settings.database), settings.local_traces_days, int(settings.local_traces_mb * (1 << 20))
        )
        found.append(Delivery("local", spool_folder(settings) / "local", local, cap_bytes))
    return found


def _local_traces(settings: Settings) -> Search | None:
    """What reads the traces that are kept here; None where none are."""
    if not settings.traces_kept_here:
        return None
    from gateway.storage.database import Database  # noqa: PLC0415  # as above
    from gateway.tracing.search import Search  # noqa: PLC0415

    return Search(Database(settings.database))


def migrate(settings: Settings) -> None:
    """Make the gateway's own databases, or bring them up to date: the file, and the server where there is one.

    Before the fork.

    Raises:
        SettingsError: one cannot be used; says why and what to do.
    """
    from gateway.storage.database import StorageError  # noqa: PLC0415  # as above
    from gateway.storage.migrate import upgrade  # noqa: PLC0415

    advice = "mend it, or set GATEWAY_DATA_DIR to another folder"
    try:
        upgrade(settings.database)
        if settings.database_url is not None:
            advice = "mend it, or set DATABASE_URL to another database"
            upgrade(settings.database_url)
    except StorageError as error:
        raise SettingsError([f"{error}: {advice}"]) from error
    else:
        _warn_of_lost_keys(settings)
    finally:
        stop_threads()


def _warn_of_lost_keys(settings: Settings) -> None:
    from gateway.storage.database import StorageError  # noqa: PLC0415  # as above

    shared = database(settings)
    try:
        lost = directory(settings, shared).keys.lost()
    except StorageError as error:
        raise SettingsError([str(error)]) from error
    finally:
        shared.release()
    if lost:
        log.error(
            "%d virtual keys are of no use: they were made with another pepper. Put the right one back "
            "(GATEWAY_KEY_PEPPER, or %s in the data folder), or rotate them.",
            lost,
            pepper.FILE,
        )


def database(settings: Settings, patience_s: float | None = None) -> Database:
    """The database that all hosts share, where one is set, else the file. Opens nothing: `migrate` makes its tables."""
    from gateway.storage.database import Database  # noqa: PLC0415  # as above

    return Database(settings.database_url or settings.database, patience_s=patience_s or _OBJECTS_PATIENCE_S)


def owned_objects(settings: Settings, shared: Database | None = None) -> OwnedObjects:
    """Say who owns what outlives its call. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.owned import OwnedObjects  # noqa: PLC0415  # as above

    keep_bytes = int(settings.stored_responses_mb * (1 << 20))
    return OwnedObjects(shared or database(settings), settings.stored_responses_days, keep_bytes)


def counters(settings: Settings, shared: Database | None = None) -> Counters:
    """What limits and budgets are counted in: the server of `REDIS_URL`, else the database. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.

    Raises:
        SettingsError: the address cannot be used.
    """
    if settings.redis_url is None:
        from gateway.storage.tabled import TableCounters  # noqa: PLC0415  # as above

        return TableCounters(shared or database(settings))
    from gateway.storage.faults import StorageFailed  # noqa: PLC0415  # as above
    from gateway.storage.redis import RedisCounters  # noqa: PLC0415

    try:
        return RedisCounters(settings.redis_url)
    except StorageFailed as error:
        raise SettingsError([str(error)]) from error


def kept_answers(settings: Settings, patience_s: float = CACHE_PATIENCE_S) -> Answers | None:
    """Where the cache keeps answers for all workers; None where each has only its own. Opens nothing.

    Args:
        settings: the configuration.
        patience_s: how long the store may take for an answer.

    Raises:
        SettingsError: the address cannot be used.
    """
    if settings.cache_store == "memory":
        return None
    largest_bytes = _bytes(settings.cache_largest_mb)
    if settings.redis_url is None or settings.cache_store == "database":
        from gateway.storage.answers_table import TableAnswers  # noqa: PLC0415  # as above

        return TableAnswers(database(settings, patience_s), _bytes(settings.cache_mb), largest_bytes)
    from gateway.storage.answers_redis import RedisAnswers  # noqa: PLC0415  # as above
    from gateway.storage.faults import StorageFailed  # noqa: PLC0415

    try:
        return RedisAnswers(settings.redis_url, largest_bytes, timeout_s=patience_s)
    except StorageFailed as error:
        raise SettingsError([str(error)]) from error


def _bytes(megabytes: float) -> int:
    return int(megabytes * (1 << 20))


def followed_rules(settings: Settings) -> FollowedRules:
    """The limits and budgets that calls are held to. Opens nothing."""
    from gateway.storage.followed import FollowedRules  # noqa: PLC0415  # as above

    return FollowedRules(database(settings, _LOOKUP_PATIENCE_S))


def notifier(settings: Settings, shared: Database | None = None) -> Notifier:
    """What tells the operator of budgets that run out. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.notify import Notifier  # noqa: PLC0415  # as above
    from gateway.storage.notices import Notices  # noqa: PLC0415

    return Notifier(Notices(shared or database(settings)), settings.webhook_secret)


def _health(settings: Settings, shared: Database, counted: Counters) -> StoreHealth:
    checks: dict[str, Callable[[], object]] = {"database": shared.check}
    if settings.redis_url is not None:
        checks["counters"] = counted.check
    return StoreHealth(checks)


def directory(settings: Settings, shared: Database | None = None) -> Directory:
    """What manages keys; the same for the gateway and for its commands. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.directory import Directory  # noqa: PLC0415  # as above

    return Directory.of(shared or database(settings), pepper_of(settings))


def pepper_of(settings: Settings) -> Callable[[], Pepper]:
    """Return what returns the pepper, read or made when it is first asked for."""
    given = settings.key_pepper
    return cache(lambda: Pepper(given if given is not None else pepper.kept_pepper(settings.data_dir)))


def authenticator(settings: Settings) -> Authenticator:
    """Say who may call: static tokens, then virtual keys, then JWTs; each knows by its shape what is not its own."""
    from gateway.storage.lookup import KeyLookup  # noqa: PLC0415  # as above

    lookup = KeyLookup(database(settings, _LOOKUP_PATIENCE_S))
    verifiers: list[Verifier] = [StaticTokens(settings.tokens), VirtualKeys(lookup, pepper_of(settings))]
    if settings.admin_token is not None:
        verifiers.insert(0, StaticTokens([settings.admin_token], admin=True))
    if settings.oidc_issuer is not None:
        from gateway.auth.issuer import IssuerKeys  # noqa: PLC0415  # cryptography: only where it is needed
        from gateway.auth.oidc import Claims, JsonWebTokens  # noqa: PLC0415

        claims = Claims(
            caller=settings.oidc_caller_claim,
            project=settings.oidc_project_claim,
            scopes=settings.oidc_scopes_claim,
            models=settings.oidc_models_claim,
            call_scope=settings.oidc_call_scope,
            admin_scope=settings.oidc_admin_scope,
        )
        issuer, algorithms = settings.oidc_issuer, settings.oidc_algorithms
        keys = IssuerKeys(issuer, settings.oidc_jwks_url, algorithms)
        verifiers.append(JsonWebTokens(issuer, settings.oidc_audience, algorithms, keys, claims))
    return Authenticator(verifiers)


def _sinks(settings: Settings, metrics: Metrics) -> list[Sink]:
    spools: list[Sink] = [_spool(settings, metrics, delivery) for delivery in deliveries(settings)]
    return spools if settings.braintrust_api_key is not None else [*spools, Console()]


def _spool(settings: Settings, metrics: Metrics, delivery: Delivery) -> Spool:
    counts = SinkCounts(metrics, delivery.sink)
    return Spool(
        delivery.folder,
        delivery.sender(counts),
        name=delivery.sink,
        cap_bytes=delivery.cap_bytes,
        refuse=settings.spool_full == "refuse",
        fsync=settings.spool_fsync,
        place=delivery.place,
        counts=counts,
    )


class SinkCounts(Counts):
    """Counts the rows of one sink in the gateway's metrics."""

    def __init__(self, metrics: Metrics, sink: str) -> None:
        self._metrics = metrics
        self._sink = sink

    def sent(self, rows: int) -> None:
        """Count rows that were delivered."""
        self._metrics.rows_sent(self._sink, rows)

    def dropped(self, rows: int) -> None:
        """Count rows that are lost."""
        self._metrics.rows_dropped(self._sink, rows)

    def quarantined(self, rows: int) -> None:
        """Count rows that were put aside."""
        self._metrics.rows_quarantined(self._sink, rows)

    def damaged(self, frames: int) -> None:
        """Count frames that cannot be read."""
        self._metrics.frames_damaged(self._sink, frames)

    def interrupted(self, calls: int) -> None:
        """Count calls that their process left unfinished."""
        self._metrics.traces_interrupted(self._sink, calls)


def redactor_of(settings: Settings, table: Table) -> Redactor:
    """What takes the gateway's own credentials out of a text: those of the settings and of the routes file."""
    return Redactor(_secrets_of(settings, table), rest)


def _secrets_of(settings: Settings, table: Table) -> list[str]:
    known = [
        *settings.tokens,
        settings.admin_token,
        settings.key_pepper,
        settings.webhook_secret,
        settings.braintrust_api_key,
        *table.secrets,
    ]
    known += [*settings.store_passwords, *settings.otlp_headers.values()]
    known += [credential.api_key for credential in settings.credentials.values()]
    return [secret.reveal() for secret in known if secret is not None]


def own_prices(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """Read the operator's prices.

    Raises:
        SettingsError: the file cannot be used.
    """
    if (path := settings.prices) is None:
        return {}
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError([f"GATEWAY_PRICES: {path} cannot be read as JSON: {error}"]) from error
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise SettingsError([f"GATEWAY_PRICES: {path} is no object of model names and their prices"])
    return rows
