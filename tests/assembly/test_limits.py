"""What holds calls to limits, as the settings say."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway import assembly
from gateway.core.calls import Caller
from gateway.settings import Settings
from gateway.storage.audit import By
from gateway.storage.memory import MemoryCounters
from gateway.storage.redis import RedisCounters
from gateway.storage.tabled import TableCounters
from tests.builders import settings


@pytest.mark.parametrize(
    ("named", "kind", "bounded"),
    [
        ("auto", RedisCounters, True),
        ("redis", RedisCounters, True),
        ("database", TableCounters, False),
        ("memory", MemoryCounters, True),
    ],
)
def test_limits_are_counted_where_the_operator_says(named: str, kind: type, bounded: bool, tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://127.0.0.2:9/1", "GATEWAY_COUNTERS": named}
    made = assembly.build(Settings.from_env(environ, tmp_path))
    assert isinstance(made.counters, kind)
    assert ("counters" in made.stores._checks) is (kind is RedisCounters)
    assert made.limiter is not None
    assert made.limiter._link.counters is made.counters
    assert made.limiter._link._bounded is bounded


def test_limits_are_kept_as_the_operator_says(tmp_path: Path) -> None:
    environ = {
        "GATEWAY_RATE_LIMIT_RPM": "60",
        "GATEWAY_LIMITS_FAIL": "closed",
        "GATEWAY_BUDGET_RESERVE": "max",
        "GATEWAY_BUDGET_UNPRICED": "allow",
    }
    made = assembly.build(Settings.from_env(environ, tmp_path), workers=3)
    assert made.limiter is not None
    policy = made.limiter._policy
    assert (policy.rpm, policy.fail_open, policy.reserve_largest, policy.allow_unpriced) == (60, False, True, True)
    assert policy.workers == 3
    assert policy.models
    plain = assembly.build(Settings.from_env({"WEB_CONCURRENCY": "2"}, tmp_path)).limiter
    assert plain is not None
    policy = plain._policy
    assert (policy.rpm, policy.fail_open, policy.reserve_largest, policy.allow_unpriced) == (None, True, False, False)
    assert policy.workers == 2


def test_what_one_process_makes_a_limit_another_holds_calls_to(tmp_path: Path) -> None:
    made = settings(GATEWAY_DATA_DIR=str(tmp_path), GATEWAY_METRICS="off")
    assembly.migrate(made)
    threads = threading.active_count()
    gateway = assembly.build(made)
    gateway.open()
    assert gateway.rules is not None
    assert gateway.notifier is not None
    wanted = {"name": "a", "measure": "tokens", "most": 5, "period": "day"}
    kept = assembly.directory(made).limits.create(wanted, By("cli"))
    gateway.rules.poll()
    assert gateway.rules.of(Caller("tok_1", "tok_1"), ("demo/echo",)) == (kept.rule,)
    gateway.close(0.1)
    assert threading.active_count() == threads
    assert gateway.rules._poller is not None
    assert not gateway.rules._poller.is_alive()
