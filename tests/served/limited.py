"""A gateway in a process of its own that is held to rules of a test's, at a model that costs a dollar a call."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.rules import BUDGET, LIMIT, MICRO, REQUESTS, USD, Rule
from gateway.secret import Secret
from gateway.storage.database import Database
from tests.fakes.provider import FakeProvider, Reply, answer
from tests.fakes.stores import Redis
from tests.served.process import PROVIDER_KEY, TOKEN, Served

JSON = dict[str, Any]
MODEL = "dollar"
#: One output token a call, at a dollar each.
PRICES = {f"openai/{MODEL}": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 1}}

#: Rules and what was spent before stand in files, which the app reads for each call.
MODULE = """
import json, os
from gateway.core.rules import Match, Rule
from gateway.errors import StoreUnavailable
from gateway.serving import application

class Rules:
    def __init__(self):
        with open(os.environ["RULES_FILE"]) as file:
            self.rules = [Rule(**{**row, "match": Match(**row["match"]), "each": tuple(row["each"])})
                          for row in json.load(file)]
    def of(self, caller, models):
        return [rule for rule in self.rules if rule.match.takes(caller, models)]

class Spending:
    def spent(self, match, each, since_s, measure):
        with open(os.environ["SPENT_FILE"]) as file:
            said = file.read().strip()
        if not said:
            raise StoreUnavailable("The ledger is away.")
        return int(said)

app = application()
limiter = app.extensions["gateway"].limiter
limiter.rules, limiter.spending = Rules(), Spending()
"""


def budget(most_usd: int = 10, **more: Any) -> Rule:
    return Rule("bud_abcdefghijkl", BUDGET, USD, most_usd * MICRO, "month", **more)


def rpm(most: int, **more: Any) -> Rule:
    return Rule("lim_abcdefghijkl", LIMIT, REQUESTS, most, "minute", **more)


class Limited(Served):
    """One start, ready inside.

    Args:
        folder: an empty one.
        provider: where calls go.
        rules: those in force.
        settings: more than what every such start has.
    """

    def __init__(
        self, folder: Path, provider: FakeProvider, rules: Sequence[Rule], settings: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.spent_file = folder / "spent"
        self.spent_file.write_text("0")
        (folder / "rules").write_text(json.dumps([asdict(rule) for rule in rules]))
        (folder / "prices").write_text(json.dumps(PRICES))
        own = {
            "GATEWAY_AUTH_TOKEN": TOKEN,
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_BASE_URL": provider.base_url,
            "GATEWAY_RELAY": "openai",
            "GATEWAY_PRICES": str(folder / "prices"),
            "GATEWAY_LOCAL_TRACES": "off",
            "WEB_CONCURRENCY": "2",
            "RULES_FILE": str(folder / "rules"),
            "SPENT_FILE": str(self.spent_file),
            "LOG_LEVEL": "warning",
        }
        super().__init__(folder, {**own, **(settings or {})}, module=MODULE)

    def ledger_says(self, micro_usd: int | None) -> None:
        """What was spent before; None: the ledger is away."""
        self.spent_file.write_text("" if micro_usd is None else str(micro_usd))


def a_dollar(delay: float = 0.0) -> Reply:
    """What the provider answers: one token."""
    return answer("yes", usage=(3, 1), delay=delay)


@dataclass
class Crowd:
    """Many callers at once, each on a connection of its own.

    Attributes:
        port: of the gateway.
        told: the status and the body of each call that was answered.
        broken: calls whose connection broke, or that left by themselves.
    """

    port: int
    told: list[tuple[int, bytes]] = field(default_factory=list)
    broken: int = 0

    def ask(self, count: int, *, leaving: int = 0, again_s: float = 0.0, timeout_s: float = 120) -> Crowd:
        """Ask `count` times at once and wait for the answers.

        Args:
            count: how many.
            leaving: so many of them ask for a stream, and leave as soon as it has begun.
            again_s: a call that is told that the store is away is sent again for so long.
            timeout_s: for all of it.
        """

        async def all_of_them() -> None:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(self._one(again_s, leave=number < leaving) for number in range(count)))

        asyncio.run(all_of_them())
        return self

    async def _one(self, again_s: float, *, leave: bool) -> None:
        clock = asyncio.get_running_loop().time
        end_s = clock() + again_s
        while True:
            try:
                status, body = await self.exchange(leave=leave)
            except (OSError, EOFError):
                self.broken += 1
                return
            if status != 503 or clock() >= end_s:
                break
            await asyncio.sleep(0.5)
        if leave and status == 200:
            self.broken += 1
        else:
            self.told.append((status, body))

    async def keep_asking(self, span_s: float, *, at_once: int, leaving: int) -> None:
        """Ask again and again for some time, `at_once` at a time, of which some leave their streams."""
        end_s = time.monotonic() + span_s

        async def one(number: int) -> None:
            while time.monotonic() < end_s:
                await self._one(0.0, leave=number < leaving)
                await asyncio.sleep(0.2)

        await asyncio.gather(*(one(number) for number in range(at_once)))

    async def exchange(self, *, leave: bool = False) -> tuple[int, bytes]:
        """Ask once; return the status and the body, which is empty where the caller leaves."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            asked = {"model": f"openai/{MODEL}", "max_tokens": 1, "messages": [{"role": "user", "content": "?"}]}
            sent = json.dumps({**asked, "stream": True} if leave else asked).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (TOKEN.encode(), len(sent), sent)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if leave and status == 200:
                return status, b""
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return status, await reader.readexactly(int(length.partition(b":")[2]))
        finally:
            writer.close()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _ in self.told)

    def errors(self) -> list[JSON]:
        return [json.loads(body)["error"] for status, body in self.told if status != 200]


def leases(place: Path | Secret | Redis) -> int:
    """How many reservations a store holds."""
    if isinstance(place, Redis):
        with place.client() as client:
            return int(client.zcard("gateway:leases"))  # type: ignore[arg-type]
    return _number(place, "SELECT count(DISTINCT id) FROM reservations")


def held(place: Path | Secret | Redis) -> int:
    """What the one budget holds, spent and reserved; 0 where it was not begun."""
    if isinstance(place, Redis):
        with place.client() as client:
            return sum(int(client.hget(name, "0") or 0) for name in client.scan_iter("gateway:c:budget/*"))  # type: ignore[arg-type]
    return _number(place, "SELECT coalesce(sum(amount), 0) FROM counter_slots WHERE counter LIKE 'budget/%%'")


def _number(place: Path | Secret, question: str) -> int:
    database = Database(place)
    try:
        return int(database.read(lambda it: it.exec_driver_sql(question).scalar_one()))
    finally:
        database.release()
