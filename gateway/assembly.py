"""Builds the gateway from its settings: the one module that names concrete parts."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
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
from gateway.core.people import AdminRule
from gateway.core.periods import Period
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.routing import DEMO
from gateway.core.rules import BUDGET, LIMIT, Match, Rule
from gateway.errors import StoreUnavailable
from gateway.health import Health
from gateway.ledger import Ledger
from gateway.limits import Limiter, Policy, Rules
from gateway.limits.preview import preview
from gateway.metrics import Metrics, SpoolState
from gateway.offload import offload, rest, stop_threads
from gateway.pipeline import Gateway, Limits
from gateway.prices import own_prices
from gateway.routes import Table
from gateway.routes.catalogue import catalogue_of, needs_litellm
from gateway.routes.follower import RoutesFollower, stamp_of
from gateway.settings import Settings, SettingsError, withdraw
from gateway.storage.health import StoreHealth
from gateway.tracing import Sink, Tracer
from gateway.tracing.backlog import LEDGER
from gateway.tracing.braintrust import Braintrust
from gateway.tracing.catcher import Catcher
from gateway.tracing.console import Console
from gateway.tracing.delivery import Counts, Destination
from gateway.tracing.sender import LATE_S, POLL_S, Sender
from gateway.tracing.spool import HEADROOM_BYTES, Spool
from gateway.upstream import modelmap
from gateway.upstream.counting import Counting
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.files import StoredFiles
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import MODELS, Scripted, count
from gateway.upstream.stored import StoredResponses

if TYPE_CHECKING:
    from gateway.auth.issuer import IssuerKeys
    from gateway.auth.sign_in import SignIn
    from gateway.notify import Notifier
    from gateway.storage.answers import Answers
    from gateway.storage.counters import Counters
    from gateway.storage.database import Database
    from gateway.storage.directory import Directory
    from gateway.storage.followed import FollowedRules
    from gateway.storage.owned import OwnedObjects
    from gateway.storage.usage import UsageRows
    from gateway.tracing.search import Search

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: A caller waits for it, unlike for traces.
_OBJECTS_PATIENCE_S = 2.0
#: A row of the ledger has no content; names and tags of the longest kind take so much.
_LEDGER_HEADROOM_BYTES = 24 << 10
#: As long as this may the caller's key be looked up; readers hardly ever wait.
_LOOKUP_PATIENCE_S = 1.0

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
    logs.know(_secrets_of(settings, table))
    catalogue = catalogue_of(settings, table, models, MODELS)
    litellm = LiteLLM(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        silence_s=settings.keepalive_s,
        patch=Catcher.patch,
        form_bytes=int(settings.max_body_mb * (1 << 20)),
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

    lanes = Lanes(direct, Counting(litellm.count), litellm)
    meter = Meter(prices(settings))
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
    book = _spool(settings, metrics, ledger_delivery(settings))
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
        upstreams={
            DEMO: StoredResponses(Lanes(Counting(count), Scripted()), objects),
            "litellm": StoredFiles(lanes, objects, StoredResponses(lanes, objects)),
        },
        objects=objects,
        counters=counted,
        limiter=holds,
        standings=holds,
        stores=_health(settings, shared, counted),
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
            room_bytes=_bytes(settings.cache_mb),
            largest_bytes=_bytes(settings.cache_largest_mb),
            silence_s=settings.keepalive_s,
        ),
        redactor=redactor,
        limits=Limits(
            timeout_s=settings.timeout_s,
            whole_answer_s=min(settings.timeout_s, whole_answer_s or settings.timeout_s),
            keepalive_s=settings.keepalive_s,
            body_bytes=int(settings.max_body_mb * (1 << 20)),
            upload_bytes=int(settings.max_upload_mb * (1 << 20)),
            upload_folder=settings.data_dir / "uploads",
        ),
        cors_origins=settings.cors_origins,
        session_key=(lambda: pepper_of_sessions().seal) if settings.ui == "on" else None,
        local_traces=_local_traces(settings),
        shown_settings=settings.shown(),
        preload=litellm.load if needs_litellm(catalogue) else None,
        on_close=close_connections,
    )

    def load_litellm() -> None:
        litellm.load()
        logs.configure(settings.log_format, settings.log_level)  # again: LiteLLM adds handlers of its own at import
        litellm.start()

    told = set(table.warnings)

    def take(table: Table) -> None:
        secrets = _secrets_of(settings, table)
        redactor.learn(secrets)
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

    if settings.config is not None:
        gateway.routes = RoutesFollower(
            settings.config,
            stamp,
            table.revision,
            partial(routes.read, settings),
            take,
            metrics.routes_reloaded,
            offload,
        )
    return gateway


def prices(settings: Settings) -> Prices:
    """What models cost: the operator's prices, and LiteLLM's.

    Raises:
        SettingsError: the operator's file cannot be used.
    """
    return Prices({**modelmap.read(), **_FREE}, own_prices(settings))


@dataclass(frozen=True)
class Delivery:
    """A place that the rows of a spool are delivered to.

    Attributes:
        sink: its name.
        folder: of the spool that they wait in.
        place: where rows go whose caller names no place of its own; None leaves it to the destination.
        late_s: how old a call is that is delivered while it is open.
        poll_s: how often the sender looks for what is new.
        headroom_bytes: what the rows of a call may take beyond its body, where calls are refused without room.
    """

    sink: str
    folder: Path
    destination: Destination
    cap_bytes: int
    place: JSON | None = None
    late_s: float = LATE_S
    poll_s: float = POLL_S
    headroom_bytes: int = HEADROOM_BYTES

    def sender(self, counts: Counts | None = None) -> Sender:
        """What delivers the folder."""
        return Sender(
            self.folder,
            self.destination,
            name=self.sink,
            cap_bytes=self.cap_bytes,
            counts=counts,
            late_s=self.late_s,
            poll_s=self.poll_s,
        )


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


def ledger_delivery(settings: Settings) -> Delivery:
    """Say where the rows of the ledger are delivered: to the database that all hosts share, else to the file."""
    from gateway.ledger.destination import UsageTable  # noqa: PLC0415  # as above

    return Delivery(
        LEDGER,
        spool_folder(settings) / LEDGER,
        UsageTable(usage_rows(settings)),
        int(settings.spool_mb * (1 << 20)),
        late_s=math.inf,  # a call that is under way has no row yet
        poll_s=1.0,  # a transaction costs as much as fifty rows
        headroom_bytes=_LEDGER_HEADROOM_BYTES,
    )


def usage_rows(settings: Settings, shared: Database | None = None) -> UsageRows:
    """What each call used and cost. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.usage import UsageRows  # noqa: PLC0415  # as above

    return UsageRows(shared or database(settings), settings.ledger_days)


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
    """What limits and budgets are counted in (`GATEWAY_COUNTERS`). Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.

    Raises:
        SettingsError: the address cannot be used.
    """
    place = _place_of_counters(settings)
    if place == "memory":
        from gateway.storage.memory import MemoryCounters  # noqa: PLC0415  # as above

        return MemoryCounters()
    if place == "database":
        from gateway.storage.tabled import TableCounters  # noqa: PLC0415  # as above

        return TableCounters(shared or database(settings))
    from gateway.storage.faults import StorageFailed  # noqa: PLC0415  # as above
    from gateway.storage.redis import RedisCounters  # noqa: PLC0415

    if settings.redis_url is None:
        raise SettingsError(["GATEWAY_COUNTERS is redis, and REDIS_URL is not set"])
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


def _place_of_counters(settings: Settings) -> str:
    if settings.counters != "auto":
        return settings.counters
    return "database" if settings.redis_url is None else "redis"


def limiter(
    settings: Settings,
    counted: Counters,
    meter: Meter,
    metrics: Metrics,
    models: Mapping[str, Mapping[str, Any]],
    rules: Rules,
    spending: UsageRows,
    notices: Notifier,
    workers: int,
) -> Limiter:
    """What holds calls to limits and budgets. Starts nothing.

    Args:
        settings: the configuration.
        counted: what they are counted in.
        meter: what calls cost.
        metrics: where refusals are counted.
        models: LiteLLM's map.
        rules: which rules there are.
        spending: the ledger.
        notices: who is told of budgets that run out.
        workers: how many processes serve on this host.
    """
    policy = Policy(
        rpm=settings.rate_limit_rpm,
        fail_open=settings.limits_fail == "open",
        reserve_largest=settings.budget_reserve == "max",
        models=models,
        allow_unpriced=settings.budget_unpriced == "allow",
        workers=workers,
    )
    bounded = _place_of_counters(settings) != "database"
    observer = _Observed(metrics, notices)
    return Limiter(counted, rules, meter, policy, spending=_Spent(spending), observer=observer, bounded=bounded)


class _Spent:
    """What the ledger knows of a budget (limits.Spending)."""

    def __init__(self, rows: UsageRows) -> None:
        self._rows = rows

    def spent(self, match: Match, each: Mapping[str, str | None], since_s: float, measure: str) -> int:
        """Add up what counts towards a budget."""
        from gateway.storage.counters import AWAY  # noqa: PLC0415  # as above
        from gateway.storage.database import StorageError  # noqa: PLC0415

        try:
            return self._rows.spent(match, each, since_s, measure)
        except StorageError as error:
            raise StoreUnavailable(AWAY) from error


class _Observed:
    """Counts in the gateway's metrics what limits and budgets refuse, and tells of budgets that run out."""

    def __init__(self, metrics: Metrics, notices: Notifier) -> None:
        self._metrics = metrics
        self._notices = notices

    def refused(self, rule: Rule) -> None:
        """Count a call that a rule has refused."""
        self._metrics.limit_refused(rule.kind, rule.measure)

    def soft(self, rule: Rule, each: Mapping[str, str | None], used: int, most: int, period: Period) -> None:
        """Tell the budget's webhook."""
        subject = [value or "" for value in each.values()]
        self._notices.soft(rule, subject, used, most, (period.start_s, period.end_s))


def _health(settings: Settings, shared: Database, counted: Counters) -> StoreHealth:
    checks: dict[str, Callable[[], object]] = {"database": shared.check}
    if _place_of_counters(settings) == "redis":
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


def issuer_keys(settings: Settings) -> IssuerKeys | None:
    """The public keys of the issuer, which nobody has asked for yet; None where the settings name no issuer."""
    if settings.oidc_issuer is None:
        return None
    from gateway.auth.issuer import IssuerKeys  # noqa: PLC0415  # cryptography: only where it is needed

    return IssuerKeys(settings.oidc_issuer, settings.oidc_jwks_url, settings.oidc_algorithms)


def sign_in(settings: Settings, keys: IssuerKeys | None, shared: Database) -> SignIn | None:
    """The way in to the pages for people of the issuer; None where the settings name no client of it."""
    issuer, id, secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
    if issuer is None or keys is None or id is None or secret is None or settings.ui != "on":
        return None
    from gateway.auth.code_flow import CodeFlow  # noqa: PLC0415  # as above
    from gateway.auth.sign_in import SignIn  # noqa: PLC0415  # as above
    from gateway.storage.owners import Owners  # noqa: PLC0415  # as above

    claim, values = settings.oidc_admin_claim, frozenset(settings.oidc_admin_values)
    rule = AdminRule(frozenset(settings.oidc_admin_emails), claim, values)
    flow = CodeFlow(issuer, id, secret, settings.oidc_scope, settings.oidc_algorithms, keys)
    return SignIn(flow, rule, Owners(shared))


def authenticator(settings: Settings, issued: IssuerKeys | None) -> Authenticator:
    """Say who may call: static tokens, then virtual keys, then JWTs; each knows by its shape what is not its own."""
    from gateway.storage.lookup import KeyLookup  # noqa: PLC0415  # as above

    lookup = KeyLookup(database(settings, _LOOKUP_PATIENCE_S))
    verifiers: list[Verifier] = [StaticTokens(settings.tokens), VirtualKeys(lookup, pepper_of(settings))]
    if settings.admin_token is not None:
        verifiers.insert(0, StaticTokens([settings.admin_token], admin=True))
    if settings.oidc_issuer is not None and issued is not None and settings.oidc_audience:
        from gateway.auth.oidc import Claims, JsonWebTokens  # noqa: PLC0415  # as above

        claims = Claims(
            caller=settings.oidc_caller_claim,
            project=settings.oidc_project_claim,
            scopes=settings.oidc_scopes_claim,
            models=settings.oidc_models_claim,
            call_scope=settings.oidc_call_scope,
            admin_scope=settings.oidc_admin_scope,
        )
        issuer, algorithms = settings.oidc_issuer, settings.oidc_algorithms
        verifiers.append(JsonWebTokens(issuer, settings.oidc_audience, algorithms, issued, claims))
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
        headroom_bytes=delivery.headroom_bytes,
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
        settings.oidc_client_secret,
        settings.braintrust_api_key,
        *table.secrets,
    ]
    known += [*settings.store_passwords, *settings.otlp_headers.values()]
    known += [credential.api_key for credential in settings.credentials.values()]
    return [secret.reveal() for secret in known if secret is not None]
