"""Offer a limit of requests a minute twice as much, evenly, and count what passes: neither more nor less than it.

    uv run python bench/limit_window.py --minutes 3

Two workers share the limit on Redis. All spans of 60 seconds are looked at, not only the minutes of the clock.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes.provider import FakeProvider
from tests.fakes.stores import Redis, folder_for_servers, redis_programs
from tests.served.limited import MODEL, Crowd, Limited, a_dollar, rpm

SPAN_S = 60.0


async def offer(port: int, most: int, minutes: float) -> tuple[list[float], int]:
    """Send twice as many calls as are allowed, evenly; return when those were sent that passed, and how many others."""
    passed: list[float] = []
    crowd = Crowd(port)
    began_s, every_s = time.monotonic(), SPAN_S / (2 * most)

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
        sent_s = time.monotonic()
        status, _ = await crowd.exchange()
        if status == 200:
            passed.append(sent_s - began_s)

    sent = int(2 * most * minutes)
    await asyncio.gather(*(one(number) for number in range(sent)))
    return sorted(passed), sent - len(passed)


def main() -> int:
    """Run it; 1 where some minute has more than the limit, or all of them much less."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=60, help="requests a minute that are allowed (60)")
    parser.add_argument("--minutes", type=float, default=3.0, help="for how long (3)")
    chosen = parser.parse_args()
    with (
        folder_for_servers() as folder,
        tempfile.TemporaryDirectory(prefix="gateway-window-") as home,
        FakeProvider() as provider,
    ):
        provider.script(MODEL, a_dollar())
        (folder / "redis").mkdir()
        server = Redis(folder / "redis", redis_programs()["valkey"])
        server.start()
        try:
            own = {"REDIS_URL": server.url}
            with Limited(Path(home) / "gateway", provider, [rpm(chosen.most)], own) as gateway:
                passed, refused = asyncio.run(offer(gateway.port, chosen.most, chosen.minutes))
                away = gateway.log.count("limits have lost their store")
        finally:
            server.stop()
    within = max((sum(first <= at < first + SPAN_S for at in passed) for first in passed), default=0)
    wanted = chosen.most * chosen.minutes
    print(f"{len(passed)} passed and {refused} were refused in {chosen.minutes:g} minutes; {wanted:g} are allowed")
    print(f"the fullest {SPAN_S:g} s had {within}; the store was away {away} times")
    return 0 if within <= chosen.most and abs(len(passed) - wanted) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
