"""What limits cost a call: CPU of this process and time, to admit and to settle it, on each store.

    uv run python bench/limit_cost.py

Under gevent, as it is served: first one call after the other, then many at once, which a database answers together. A
call's own work is not in it, nor the CPU of a server.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.core.rules import LIMIT, MICRO, PARALLEL, TOKENS, Match, Rule  # noqa: E402
from gateway.limits import Limiter  # noqa: E402
from gateway.secret import Secret  # noqa: E402
from gateway.storage.counters import Counters  # noqa: E402
from gateway.storage.database import Database  # noqa: E402
from gateway.storage.memory import MemoryCounters  # noqa: E402
from gateway.storage.migrate import upgrade  # noqa: E402
from gateway.storage.redis import RedisCounters  # noqa: E402
from gateway.storage.tabled import TableCounters  # noqa: E402
from tests.fakes.stores import Postgres, Redis, folder_for_servers, redis_programs  # noqa: E402
from tests.limits.ruled import asked, budget, ended, limit, limiter, planned  # noqa: E402

_LARGE = 10**12
RULES: dict[str, list[Rule]] = {
    "no rule": [limit(most=_LARGE, match=Match(caller="another"))],
    "one limit": [limit(most=_LARGE, each=("caller",))],
    "three limits": [
        limit(most=_LARGE, each=("caller",)),
        limit(TOKENS, _LARGE, each=("caller",), id="lim_tokensminute"),
        Rule("lim_callsatonce1", LIMIT, PARALLEL, _LARGE, None, each=("caller",)),
    ],
    "one budget": [budget(most=10**8 * MICRO, each=("caller",))],
}
RULES["three limits and a budget"] = [*RULES["three limits"], *RULES["one budget"]]


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, tuple[Counters, bool]]]:
    """Each store, and whether it bounds its own waits."""
    upgrade(folder / "gateway.db")
    for name in ("postgres", "redis"):
        (folder / name).mkdir()
    postgres, redis = Postgres(folder / "postgres"), Redis(folder / "redis", redis_programs()["valkey"])
    for server in (postgres, redis):
        server.start()
    try:
        address = Secret(postgres.make("bench"))
        upgrade(address)
        yield {
            "memory": (MemoryCounters(), True),
            "redis": (RedisCounters(Secret(redis.url), timeout_s=5), True),
            "sqlite": (TableCounters(Database(folder / "gateway.db")), False),
            "postgres": (TableCounters(Database(address)), False),
        }
    finally:
        for server in (postgres, redis):
            server.stop()


def crowded(it: Limiter, calls: int, at_once: int) -> tuple[float, float]:
    """Return µs of CPU of a call, and how many are done a second, where many callers ask at once."""
    made, plan, outcome = asked(8), planned(), ended(1)
    it.admit(made, plan).settle(outcome)

    def ask() -> None:
        for _ in range(calls // at_once):
            it.admit(made, plan).settle(outcome)

    callers = [threading.Thread(target=ask) for _ in range(at_once)]
    began_s, spent_s = time.perf_counter(), time.process_time()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    done = calls // at_once * at_once
    return 1e6 * (time.process_time() - spent_s) / done, done / (time.perf_counter() - began_s)


def measure(it: Limiter, calls: int) -> tuple[float, float]:
    """Return µs of CPU and the median of the time, of one call of many."""
    made, plan, outcome = asked(8), planned(), ended(1)
    for _ in range(20):
        it.admit(made, plan).settle(outcome)
    spent_s, began_s = [], time.process_time()
    for _ in range(calls):
        at_s = time.perf_counter()
        it.admit(made, plan).settle(outcome)
        spent_s.append(time.perf_counter() - at_s)
    return 1e6 * (time.process_time() - began_s) / calls, 1e6 * statistics.median(spent_s)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="of each kind (1000)")
    parser.add_argument("--at-once", type=int, default=32, help="callers of the second part (32)")
    parser.add_argument("--stores", nargs="+", default=["memory", "redis", "sqlite", "postgres"], help="(all)")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), help="(all)")
    chosen = parser.parse_args()
    calls = chosen.calls
    with folder_for_servers() as folder, stores(folder) as opened:
        opened = {name: opened[name] for name in chosen.stores}
        for counters, _ in opened.values():
            counters.start()
        print(f"{'µs a call: CPU / median time':<30}" + "".join(f"{name:>18}" for name in opened))
        for name in chosen.rules:
            cells = []
            for counters, bounded in opened.values():
                made = limiter(*RULES[name], counters=counters, bounded=bounded)
                cpu_us, time_us = measure(made, calls)
                cells.append(f"{cpu_us:.0f} / {time_us:.0f}")
            print(f"{name:<30}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
        print(f"\n{f'{chosen.at_once} at once: CPU / calls a second':<30}" + "".join(f"{name:>18}" for name in opened))
        for name in chosen.rules:
            cells = []
            for counters, bounded in opened.values():
                made = limiter(*RULES[name], counters=counters, bounded=bounded)
                cpu_us, rate = crowded(made, calls, chosen.at_once)
                cells.append(f"{cpu_us:.0f} / {rate:.0f}")
            print(f"{name:<30}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
        for counters, _ in opened.values():
            counters.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
