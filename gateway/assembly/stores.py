"""The stores that the settings name, and what is kept in them. All but `migrate` open nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from gateway.auth import pepper
from gateway.cache.stores import PATIENCE_S as CACHE_PATIENCE_S
from gateway.core.keys import Pepper
from gateway.offload import stop_threads
from gateway.settings import Settings, SettingsError, bytes_of
from gateway.storage.health import StoreHealth

if TYPE_CHECKING:
    from gateway.notify import Notifier
    from gateway.storage.answers import Answers
    from gateway.storage.counters import Counters
    from gateway.storage.database import Database
    from gateway.storage.directory import Directory
    from gateway.storage.followed import FollowedRules
    from gateway.storage.owned import OwnedObjects
    from gateway.storage.usage import UsageRows

log = logging.getLogger(__package__)  # the name in log lines is the room's

#: A caller waits for it, unlike for traces.
_OBJECTS_PATIENCE_S = 2.0
#: As long as this may the caller's key be looked up; readers hardly ever wait.
LOOKUP_PATIENCE_S = 1.0


def database(settings: Settings, patience_s: float | None = None) -> Database:
    """The database that all hosts share, where one is set, else the file. Opens nothing: `migrate` makes its tables."""
    from gateway.storage.database import Database  # noqa: PLC0415  # SQLAlchemy is slow to import

    return Database(settings.database_url or settings.database, patience_s=patience_s or _OBJECTS_PATIENCE_S)


def migrate(settings: Settings) -> None:
    """Make the gateway's own databases, or bring them up to date: the file, and the server where there is one.

    Before the fork.

    Raises:
        SettingsError: one cannot be used; says why and what to do.
    """
    from gateway.storage.database import StorageError  # noqa: PLC0415  # SQLAlchemy is slow to import
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
    from gateway.storage.database import StorageError  # noqa: PLC0415  # SQLAlchemy is slow to import

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


def directory(settings: Settings, shared: Database | None = None) -> Directory:
    """What manages keys; the same for the gateway and for its commands. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.directory import Directory  # noqa: PLC0415  # SQLAlchemy is slow to import

    return Directory.of(shared or database(settings), pepper_of(settings))


def pepper_of(settings: Settings) -> Callable[[], Pepper]:
    """Return what returns the pepper, read or made when it is first asked for."""
    given = settings.key_pepper
    return cache(lambda: Pepper(given if given is not None else pepper.kept_pepper(settings.data_dir)))


def owned_objects(settings: Settings, shared: Database | None = None) -> OwnedObjects:
    """Say who owns what outlives its call. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.owned import OwnedObjects  # noqa: PLC0415  # SQLAlchemy is slow to import

    keep_bytes = bytes_of(settings.stored_responses_mb)
    return OwnedObjects(shared or database(settings), settings.stored_responses_days, keep_bytes)


def usage_rows(settings: Settings, shared: Database | None = None) -> UsageRows:
    """What each call used and cost. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.storage.usage import UsageRows  # noqa: PLC0415  # SQLAlchemy is slow to import

    return UsageRows(shared or database(settings), settings.ledger_days)


def counters(settings: Settings, shared: Database | None = None) -> Counters:
    """What limits and budgets are counted in (`GATEWAY_COUNTERS`). Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.

    Raises:
        SettingsError: the address cannot be used.
    """
    place = place_of_counters(settings)
    if place == "memory":
        from gateway.storage.memory import MemoryCounters  # noqa: PLC0415  # SQLAlchemy is slow to import

        return MemoryCounters()
    if place == "database":
        from gateway.storage.tabled import TableCounters  # noqa: PLC0415  # SQLAlchemy is slow to import

        return TableCounters(shared or database(settings))
    from gateway.storage.faults import StorageFailed  # noqa: PLC0415  # SQLAlchemy is slow to import
    from gateway.storage.redis import RedisCounters  # noqa: PLC0415

    if settings.redis_url is None:
        raise SettingsError(["GATEWAY_COUNTERS is redis, and REDIS_URL is not set"])
    try:
        return RedisCounters(settings.redis_url)
    except StorageFailed as error:
        raise SettingsError([str(error)]) from error


def place_of_counters(settings: Settings) -> str:
    """Where limits and budgets are counted: `memory`, `database` or `redis`."""
    if settings.counters != "auto":
        return settings.counters
    return "database" if settings.redis_url is None else "redis"


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
    largest_bytes = bytes_of(settings.cache_largest_mb)
    if settings.redis_url is None or settings.cache_store == "database":
        from gateway.storage.answers_table import TableAnswers  # noqa: PLC0415  # SQLAlchemy is slow to import

        return TableAnswers(database(settings, patience_s), bytes_of(settings.cache_mb), largest_bytes)
    from gateway.storage.answers_redis import RedisAnswers  # noqa: PLC0415  # SQLAlchemy is slow to import
    from gateway.storage.faults import StorageFailed  # noqa: PLC0415

    try:
        return RedisAnswers(settings.redis_url, largest_bytes, timeout_s=patience_s)
    except StorageFailed as error:
        raise SettingsError([str(error)]) from error


def followed_rules(settings: Settings) -> FollowedRules:
    """The limits and budgets that calls are held to. Opens nothing."""
    from gateway.storage.followed import FollowedRules  # noqa: PLC0415  # SQLAlchemy is slow to import

    return FollowedRules(database(settings, LOOKUP_PATIENCE_S))


def notifier(settings: Settings, shared: Database | None = None) -> Notifier:
    """What tells the operator of budgets that run out. Opens nothing.

    Args:
        settings: the configuration.
        shared: the `database` to use; None makes one.
    """
    from gateway.notify import Notifier  # noqa: PLC0415  # SQLAlchemy is slow to import
    from gateway.storage.notices import Notices  # noqa: PLC0415

    return Notifier(Notices(shared or database(settings)), settings.webhook_secret)


def store_health(settings: Settings, shared: Database, counted: Counters) -> StoreHealth:
    """What says whether the stores can be used.

    Args:
        settings: the configuration.
        shared: the database that all hosts share.
        counted: what limits and budgets are counted in.
    """
    checks: dict[str, Callable[[], object]] = {"database": shared.check}
    if place_of_counters(settings) == "redis":
        checks["counters"] = counted.check
    return StoreHealth(checks)
