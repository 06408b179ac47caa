"""Kill workers and leave streams while a budget of 10 is asked for ten times as much; it never holds more than 10.

    uv run python bench/limit_crashes.py --store redis

Each call costs a dollar. After 60 seconds nothing may be held by the dead.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.core.rules import MICRO
from gateway.secret import Secret
from tests.fakes.provider import FakeProvider
from tests.fakes.stores import Postgres, Redis, folder_for_servers, redis_programs
from tests.served.limited import MODEL, Crowd, Limited, a_dollar, budget, held, leases

GRACE_S = 60.0


def watch(seen: list[int], look: Callable[[], int], over: threading.Event) -> None:
    """Note what the budget holds, ten times a second."""
    while not over.wait(0.1):
        seen.append(look())


def run(gateway: Limited, place: Path | Secret | Redis, seconds: float) -> bool:
    """Ask for more than there is while workers die; print what came of it, and say whether it is right."""
    seen: list[int] = []
    over, crowd, killed = threading.Event(), Crowd(gateway.port), 0
    watcher = threading.Thread(target=watch, args=(seen, lambda: held(place), over))
    watcher.start()
    asking = threading.Thread(target=lambda: asyncio.run(crowd.keep_asking(seconds, at_once=20, leaving=5)))
    asking.start()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(0.7)  # shorter than a call lasts, so that some are always under way
        if workers := gateway.workers():
            os.kill(workers[killed % len(workers)].pid, signal.SIGKILL)
            killed += 1
    asking.join()
    left = leases(place)
    time.sleep(GRACE_S)
    crowd_after = Crowd(gateway.port).ask(20, again_s=10)
    over.set()
    watcher.join()
    answered = crowd.statuses[200] + crowd_after.statuses[200]
    print(f"{killed} workers were killed; {len(crowd.told)} calls were told, {crowd.broken} broke off or left")
    print(
        f"{answered} were answered in full; the budget held {max(seen) / MICRO:g} at most, {seen[-1] / MICRO:g} at last"
    )
    print(f"{left} reservations were held right after, {leases(place)} after {GRACE_S:g} s")
    return max(seen) <= 10 * MICRO and answered <= 10 and leases(place) == 0


def main() -> int:
    """Run it; 1 where the budget held more than 10, or the dead hold something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgres", "redis"), default="sqlite", help="(sqlite)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (60)")
    chosen = parser.parse_args()
    with (
        folder_for_servers() as folder,
        tempfile.TemporaryDirectory(prefix="gateway-crashes-") as home,
        FakeProvider() as provider,
    ):
        provider.script(MODEL, a_dollar(delay=1.2))
        server: Postgres | Redis | None = None
        own: dict[str, str] = {"GATEWAY_LIMITS_FAIL": "closed"}
        place: Path | Secret | Redis = Path(home) / "gateway" / "data" / "gateway.db"
        (folder / "store").mkdir()
        if chosen.store == "postgres":
            server = Postgres(folder / "store")
            server.start()
            place = Secret(server.make("crashes"))
            own["DATABASE_URL"] = place.reveal()
        elif chosen.store == "redis":
            server = place = Redis(folder / "store", redis_programs()["valkey"])
            server.start()
            own["REDIS_URL"] = server.url
        try:
            with Limited(Path(home) / "gateway", provider, [budget()], own) as gateway:
                return 0 if run(gateway, place, chosen.seconds) else 1
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    sys.exit(main())
