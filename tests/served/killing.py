"""The gateway under load, killed again and again, and what Braintrust and the ledger have of it in the end.

A *cycle* is one SIGKILL: of a worker, of the worker that delivers traces, of the master (its workers have to notice),
or of all at once. After the last two it starts again on the same data folder.
"""

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from gateway.tracing.backlog import LEDGER
from tests.fakes.braintrust_server import FakeBraintrust, Row
from tests.served.books import PRICES, differences, rows_of
from tests.served.process import BRAINTRUST_KEY, TOKEN, Served, is_gone
from tests.served.traces import spans_of

Victim = Literal["worker", "sender", "master", "all"]

CALLERS = 16
WORKERS = 2
#: One round of victims; each round is shuffled.
_ROUND: tuple[Victim, ...] = ("worker", "sender", "sender", "master", "worker", "all", "sender", "worker")
_CALL_S = 30.0
#: No caller waits for a port that answers nobody yet.
_DIAL_AGAIN_S = 0.02
#: Whoever is told to come again later does not do so at once.
_SENT_AWAY_S = 0.03
_MOST_WORDS = 25
#: The longest that a kill waits for calls that were answered since the last one.
_PROGRESS_S = 20.0
_MOST_PAUSE_S = 0.4
#: A lost master's workers end by themselves within gunicorn's own look-around, and hand over.
_ORPHANS_END_S = 15.0
_REPLAYED_S = 30.0
#: A stop has a bound: on a busy machine it leaves what it delivered last for the next start to remove.
_TIDY_STARTS = 3


@dataclass
class Seen:
    """One call whose head came: what its caller saw of it."""

    nonce: str
    request_id: str
    status: int
    stream: bool
    ended: bool = False

    @property
    def whole(self) -> bool:
        """The caller has the answer to its end."""
        return self.ended and self.status == 200


@dataclass
class Load:
    """Callers that send one chat after another, streamed or not, on connections that they keep."""

    callers: int = CALLERS
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    answered: int = 0
    faults: list[str] = field(default_factory=list)
    _sent: int = 0
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller read its answer to the end, and wait for that."""
        self._stopped = True
        self._thread.join(2 * _CALL_S)
        assert not self._thread.is_alive(), "a caller waits for ever"

    async def _all(self) -> None:
        await asyncio.gather(*(self._caller(random.Random(number)) for number in range(self.callers)))

    async def _caller(self, chance: random.Random) -> None:
        while not self._stopped:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(_DIAL_AGAIN_S)
                continue
            try:
                while not self._stopped and await self._call(reader, writer, chance):
                    pass
            except (OSError, asyncio.IncompleteReadError):
                pass  # the kill
            except Exception as fault:  # noqa: BLE001  # whatever else came is no answer of the gateway's
                self.faults.append(repr(fault))
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random) -> bool:
        """Send one chat and read all of it; False where the connection is to be closed."""
        self._sent += 1
        nonce = f"nonce-{self._sent:07d}."
        asked = {
            "model": "demo/echo",
            "messages": [{"role": "user", "content": f"{nonce} {'word ' * chance.randrange(_MOST_WORDS)}".strip()}],
            "stream": chance.random() < 0.6,
        }
        async with asyncio.timeout(_CALL_S):
            body = json.dumps(asked).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (TOKEN.encode(), len(body), body)
            )
            status, headers = _head_of(await reader.readuntil(b"\r\n\r\n"))
            seen = Seen(nonce, headers["request-id"], status, bool(asked["stream"]))
            self.seen.append(seen)
            if headers.get("transfer-encoding") == "chunked":
                await self._read_stream(reader, seen)
            else:
                whole = json.loads(await reader.readexactly(int(headers["content-length"])))
                assert (nonce in whole["choices"][0]["message"]["content"]) if status == 200 else whole["error"], whole
                seen.ended = True
        self.answered += seen.whole
        if status == 503:
            await asyncio.sleep(_SENT_AWAY_S)
        return headers.get("connection", "") != "close"

    async def _read_stream(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        last = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            last = await reader.readexactly(size)
            if last.endswith(b"data: [DONE]\n\n"):
                seen.ended = True  # the caller has all that it waits for
            elif last.startswith(b'data: {"error"'):
                seen.ended, seen.status = True, 0
            await reader.readexactly(2)
        await reader.readexactly(2)
        assert seen.ended, f"a stream that ends well has an end: {last!r}"


def _head_of(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


@dataclass
class Verdict:
    """What became of the calls.

    Attributes:
        acknowledged: calls whose end their caller saw, an error included.
        cut: calls of which the caller saw the head and no end.
        interrupted: traces that say so.
        lost: what is missing of a call that its caller knows of, a sentence each.
        doubled: request ids with more than one root.
        left: files of the spools that should be gone.
        rows: of the ledger, and how many of them are `lost_rows`.
        priced_usd: what all rows of the ledger cost.
        apart: what the ledger and the traces say differently of a call, a sentence each.
    """

    cycles: int
    seconds: float
    kills: Mapping[str, int]
    acknowledged: int
    cut: int
    roots: int
    interrupted: int
    lost: list[str]
    doubled: list[str]
    left: list[str]
    faults: list[str]
    rows: int
    lost_rows: int
    priced_usd: float
    apart: list[str]

    @property
    def good(self) -> bool:
        """Nothing is lost, doubled or left over, and the ledger says what the traces say."""
        return not (self.lost or self.doubled or self.left or self.faults or self.apart)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {victim}" for victim, count in sorted(self.kills.items()))
        lines = [
            f"{self.cycles} cycles ({kills}) in {self.seconds:.0f} s: {self.acknowledged} calls acknowledged, "
            f"{self.cut} cut; {self.roots} roots, of which {self.interrupted} interrupted; "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.left)} files left",
            f"ledger: {self.rows} rows, of which {self.lost_rows} lost, {self.priced_usd:.6f} USD; "
            f"{len(self.apart)} say otherwise than their traces",
        ]
        lines += [*self.lost[:10], *self.doubled[:10], *self.left[:10], *self.faults[:10], *self.apart[:10]]
        return "\n".join(lines)


class Killing:
    """The run.

    Args:
        folder: an empty one.
        seed: of the victims and the moments.
        say: told of each cycle.
    """

    def __init__(self, folder: Path, *, seed: int = 1, say: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._say = say
        self._starts = 0

    def run(self, cycles: int) -> Verdict:
        """Kill so many times, start and stop in good order, and compare what callers saw with what was traced."""
        began_s = time.monotonic()
        kills: Counter[str] = Counter()
        victims: list[Victim] = []
        with FakeBraintrust(BRAINTRUST_KEY) as braintrust:
            served = self._start(braintrust)
            try:
                with Load(port=served.port) as load:
                    for cycle in range(cycles):
                        if not victims:
                            victims = self._chance.sample(_ROUND, len(_ROUND))
                        self._wait_for_a_moment(load)
                        victim = victims.pop()
                        kills[victim] += 1
                        if self._kill(served, victim):
                            served = self._start(braintrust)
                            load.port = served.port
                        at_s = time.monotonic() - began_s
                        self._say(f"{at_s:6.1f} s {cycle + 1}/{cycles} {victim}: {load.answered} calls answered so far")
                    self._wait_for_a_moment(load)
                served.stop()
                for _ in range(_TIDY_STARTS):
                    served = self._start(braintrust)
                    self._wait_replayed(served)
                    served.stop()
                    if not (left := _left(served)):
                        break
            except BaseException:
                served.end()
                raise
            book = rows_of(self._folder / "data")
            return _judged(cycles, time.monotonic() - began_s, kills, load, braintrust.rows(), book, left)

    def _start(self, braintrust: FakeBraintrust) -> Served:
        self._starts += 1
        prices = self._folder / "prices.json"
        prices.write_text(json.dumps(PRICES))
        own = {
            "GATEWAY_PRICES": str(prices),
            "GATEWAY_AUTH_TOKEN": TOKEN,
            "WEB_CONCURRENCY": str(WORKERS),
            "GATEWAY_DATA_DIR": str(self._folder / "data"),
            "GATEWAY_SPOOL_MB": "16",  # segments are an eighth of it: so some are filled, and calls begun again
        }
        served = Served(self._folder / f"start-{self._starts}", own | braintrust.environment())
        served.data_dir = self._folder / "data"
        try:
            served.wait_ready()
        except BaseException:
            served.end()
            raise
        return served

    def _wait_for_a_moment(self, load: Load) -> None:
        """Mostly until calls are answered again; sometimes the next kill comes while the last one is still felt."""
        if self._chance.random() < 0.7:
            before, end_s = load.answered, time.monotonic() + _PROGRESS_S
            while load.answered < before + CALLERS // 2:
                assert time.monotonic() < end_s, f"no call was answered for {_PROGRESS_S} s; {load.faults}"
                time.sleep(0.01)
        time.sleep(self._chance.uniform(0, _MOST_PAUSE_S))

    def _kill(self, served: Served, victim: Victim) -> bool:
        """Kill; True where the gateway has to be started again."""
        workers = served.workers()
        if victim in ("master", "all"):
            served.kill(workers_too=victim == "all")
            end_s = time.monotonic() + _ORPHANS_END_S
            while not all(map(is_gone, workers)):
                assert time.monotonic() < end_s, f"workers outlive their master: {served.log[-2000:]}"
                time.sleep(0.02)
            served.end()
            return True
        if workers:
            of = self._chance.choice(("braintrust-", LEDGER))
            sender = next((one for one in workers if one.pid == _sender(served, of)), None)
            one = sender if victim == "sender" and sender is not None else self._chance.choice(workers)
            with suppress(ProcessLookupError):
                os.kill(one.pid, 9)
        return False

    def _wait_replayed(self, served: Served) -> None:
        """Wait until only those that live have segments: a process has the lock of its own `.live`."""
        end_s = time.monotonic() + _REPLAYED_S
        while True:
            found = [path for folder in _spools(served) for path in folder.glob("*.seg")]
            of = {path.with_name(f"{path.name.rpartition('-')[0]}.live") for path in found}
            if all(_inode(live) in _holders() for live in of):
                return
            assert time.monotonic() < end_s, sorted(path.name for path in found)
            time.sleep(0.05)


def _left(served: Served) -> list[str]:
    files = [path for folder in _spools(served) for path in folder.iterdir()]
    return [path.name for path in files if path.suffix in (".seg", ".ack", ".live")]


def _spools(served: Served) -> list[Path]:
    """The folders of Braintrust's spool and of the ledger's, as far as they are made."""
    top = served.data_dir / "spool"
    return sorted(top.iterdir()) if top.is_dir() else []


def _sender(served: Served, of: str) -> int | None:
    """The process that holds the lock of the one that delivers the folder whose name begins so."""
    locks = [folder / "sender.lock" for folder in _spools(served) if folder.name.startswith(of)]
    return next((_holders().get(_inode(lock)) for lock in locks), None)


def _holders() -> dict[str | None, int]:
    """Who has each locked file, by its inode."""
    held: dict[str | None, int] = {}
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, mode, pid, where, *_ = line.replace("-> ", "").split()
        if (kind, mode) == ("FLOCK", "WRITE"):
            held[where.rpartition(":")[2]] = int(pid)
    return held


def _inode(path: Path) -> str | None:
    """Its number; None where it is gone."""
    try:
        return str(path.stat().st_ino)
    except FileNotFoundError:
        return None


def _judged(
    cycles: int,
    seconds: float,
    kills: Mapping[str, int],
    load: Load,
    rows: list[Row],
    book: Mapping[str, Row],
    left: list[str],
) -> Verdict:
    roots, under = spans_of(rows)
    lost = []
    for seen in load.seen:
        if not (found := roots.get(seen.request_id)):
            lost.append(f"{seen}: no trace")
        elif why := _missing(seen, found[0], under[found[0]["span_id"]]):
            lost.append(f"{seen}: {why}")
    every = [row for some in roots.values() for row in some]
    lost += [f"{row['metadata']['request_id']}: still open" for row in every if "open" in row["metadata"]]
    return Verdict(
        cycles,
        seconds,
        kills,
        acknowledged=sum(seen.ended for seen in load.seen),
        cut=sum(not seen.ended for seen in load.seen),
        roots=len(every),
        interrupted=sum("interrupted" in row["metadata"] for row in every),
        lost=lost,
        doubled=[request for request, some in roots.items() if len(some) > 1],
        left=left,
        faults=load.faults,
        rows=len(book),
        lost_rows=sum(row["state"] == "lost" for row in book.values()),
        priced_usd=sum(row["cost_nano"] or 0 for row in book.values()) / 1e9,
        apart=differences(book, roots, under, [seen.request_id for seen in load.seen if seen.ended]),
    )


def _missing(seen: Seen, root: Row, spans: list[Row]) -> str | None:
    """Say what a trace lacks of what its caller saw."""
    if "end" not in root["metrics"]:
        return "the root has no end"
    if "interrupted" in root["metadata"]:
        return "interrupted, and its caller has all of it" if seen.ended else None
    if [span["span_attributes"]["type"] for span in spans] != ["llm"] and seen.status == 200:
        return f"{len(spans)} spans under the root"
    if seen.whole:
        texts: list[Any] = [root.get("input"), root.get("output"), spans[0].get("input"), spans[0].get("output")]
        if not all(seen.nonce in json.dumps(text) for text in texts):
            return "input or output is not there"
    return None
