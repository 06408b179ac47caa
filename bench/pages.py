"""How long the gateway's pages take with a million rows in the ledger, and what they do to the streams beside them.

    uv run python bench/pages.py [--rows 1000000] [--only sqlite|postgres]

Rows of 90 days (`bench/ledger_queries.py`), three in a hundred failed; one worker on a core of its own. Each page is
loaded in turn, one reader at a time: alone, and while 100 streams get a chunk every 50 ms. At last all rows are
exported as CSV, and the memory that it takes is looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from itertools import chain, cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures
from bench.big_body import Memory, watched
from bench.figures import at_share, shown
from bench.ledger_queries import DAYS, fill, rows
from bench.peers import Contender, gateway
from bench.processes import GATEWAY_CORE, Process, Programs, answers, pin
from bench.stamp import stamp
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.usage import UsageRows
from tests.fakes.stores import Postgres

PLACE = "pages"
ADMIN_TOKEN = "admin-token-of-the-bench"
_START_S = 120.0
_CHUNKS = 240
_CODES = ("rate_limit_exceeded", "upstream_timeout", "upstream_unavailable", "context_length_exceeded")
_KEY = f"{3:012d}"

#: What is loaded, by what it is called.
PAGES: Mapping[str, str] = {
    "overview, 24 hours": "/ui/?span=24h",
    "overview, 7 days": "/ui/?span=7d",
    "overview, 30 days": "/ui/?span=30d",
    "its charts, 30 days": "/ui/overview.json?span=30d",
    "requests": "/ui/requests?live=off",
    "requests of 45 days ago": "/ui/requests?live=off&" + urlencode({"before": "AGO"}),
    "requests of one key": f"/ui/requests?live=off&key={_KEY}",
    "requests, failed, 24 hours": "/ui/requests?live=off&status=error&span=24h",
    "errors, 24 hours": "/ui/errors?span=24h",
    "errors, 30 days": "/ui/errors?span=30d",
    "keys": "/ui/keys",
    "models, 24 hours": "/ui/models?span=24h",
}


@dataclass
class Found:
    """What one store gave.

    Attributes:
        alone_ms, beside_ms: of each load of a page, by its name, without and with streams.
        gap_ms: the longest gap between two chunks of a stream, without and with somebody who reads pages.
        export_s: how long all rows took as CSV, and `export_bytes` how large that was.
        grown_bytes: the most memory that it took above what was used before.
    """

    alone_ms: dict[str, list[float]] = field(default_factory=dict)
    beside_ms: dict[str, list[float]] = field(default_factory=dict)
    gap_ms: tuple[float, float] = (0.0, 0.0)
    export_s: float = 0.0
    export_bytes: int = 0
    grown_bytes: int = 0


def failing(made: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Have three rows in a hundred fail, with one code after the other."""
    for number, (row, code) in enumerate(zip(made, cycle(_CODES), strict=False)):
        yield {**row, "status": 503, "error_code": code} if number % 100 < 3 else row


class Reader:
    """Somebody who has signed in, on one connection."""

    def __init__(self, port: int, now_s: float) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=120)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self._http.request("POST", "/ui/sign-in", urlencode({"credential": ADMIN_TOKEN}), form)
        answer = self._http.getresponse()
        answer.read()
        self._headers = {"Cookie": (answer.getheader("Set-Cookie") or "").partition(";")[0]}
        self._ago = f"{now_s - DAYS / 2 * 86_400!r},req_"

    def load_ms(self, path: str) -> float:
        """Load a page, and say how long it took.

        Raises:
            RuntimeError: it is none.
        """
        self._http.close()  # the gateway may be about to do so
        began_s = time.perf_counter()
        self._http.request("GET", path.replace("AGO", self._ago), headers=self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:200]!r}")
        return 1000 * (time.perf_counter() - began_s)

    def export(self) -> tuple[float, int]:
        """Load all rows as CSV; how long that took, and how many bytes they are."""
        self._http.close()
        began_s, size_bytes = time.perf_counter(), 0
        self._http.request("GET", "/ui/requests/export?format=csv", headers=self._headers)
        answer = self._http.getresponse()
        while piece := answer.read(1 << 16):
            size_bytes += len(piece)
        return time.perf_counter() - began_s, size_bytes

    def read(self, into: dict[str, list[float]], over: threading.Event) -> None:
        """Load one page after the other until it is over."""
        for name, path in cycle(PAGES.items()):
            if over.is_set():
                return
            into.setdefault(name, []).append(self.load_ms(path))
            over.wait(0.02)


def measure(programs: Programs, folder: Path, name: str, address: str | None, count: int, rounds: int) -> Found:
    """Fill a store, and load all pages.

    Args:
        programs: the provider and the load generator.
        folder: an empty one.
        name: of the store, for messages.
        address: `DATABASE_URL`; None for the file of the data folder.
        count: how many rows.
        rounds: how often each page is loaded alone.
    """
    found, now_s = Found(), time.time()
    with programs.provider(posted=folder / "posted") as provider:
        more = {"GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN, **({"DATABASE_URL": address} if address else {})}
        contender = gateway(provider, "relay", **more)
        contender.lay_out(folder / "home")
        place = Secret(address) if address is not None else folder / "home/data/gateway.db"
        if isinstance(place, Path):
            place.parent.mkdir(mode=0o700)
        began_s = time.monotonic()
        upgrade(place)
        fill(place, failing(rows(count, now_s)))
        database = Database(place, patience_s=60)
        hours = UsageRows(database).add_up(now_s, 24 * (DAYS + 1))
        database.release()
        print(f"{name}: {count} rows, {hours} hours added up, {time.monotonic() - began_s:.0f} s", file=sys.stderr)
        with Process(name, contender.command, folder / "home", contender.environment, GATEWAY_CORE) as process:
            port = contender.port or 0
            first = json.dumps({"model": contender.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
            process.wait_for(partial(answers, port, contender.path, first, contender.headers), _START_S)
            _keys(port)
            reader = Reader(port, now_s)
            for page, path in chain.from_iterable([PAGES.items()] * (rounds + 1)):
                found.alone_ms.setdefault(page, []).append(reader.load_ms(path))
            found.alone_ms = {page: took[1:] for page, took in found.alone_ms.items()}  # the first one warms it
            alone = watched(programs, contender, _CHUNKS)
            beside = _beside(programs, contender, reader, found)
            found.gap_ms = (alone["gap_max_ms"], beside["gap_max_ms"])
            before_bytes, memory = process.pss_bytes(), Memory(process)
            memory.start()
            found.export_s, found.export_bytes = reader.export()
            found.grown_bytes = memory.stop() - before_bytes
    return found


def _beside(programs: Programs, contender: Contender, reader: Reader, found: Found) -> Mapping[str, float]:
    over = threading.Event()
    reading = threading.Thread(target=reader.read, args=(found.beside_ms, over))
    reading.start()
    try:
        told: Mapping[str, float] = watched(programs, contender, _CHUNKS)
    finally:
        over.set()
        reading.join()
    return told


def _keys(port: int) -> None:
    """Make a page of virtual keys."""
    http = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    for number in range(60):
        http.request("POST", "/admin/v1/keys", json.dumps({"name": f"key {number}"}), headers)
        answer = http.getresponse()
        if answer.status >= 300:
            raise RuntimeError(f"no key was made: {answer.status} {answer.read()[:200]!r}")
        answer.read()


HEADS = ("page", "SQLite p50 / p95 alone", "p95 beside", "Postgres p50 / p95 alone", "p95 beside")


def lines(found: Mapping[str, Found]) -> list[list[str]]:
    """Write the table's lines: of each page milliseconds alone and beside streams, on each store that was measured."""
    told = []
    for page in PAGES:
        cells = [page]
        for name in ("sqlite", "postgres"):
            one = found.get(name, Found())
            alone, beside = one.alone_ms.get(page, []), one.beside_ms.get(page, [])
            cells += [figures.pair(at_share(alone, 0.5), at_share(alone, 0.95)), shown(at_share(beside, 0.95))]
        told.append(cells)
    return told


def words(name: str, found: Found, count: int) -> str:
    """Say what else one store gave."""
    return (
        f"{name}: longest gap of a stream {shown(found.gap_ms[0])} ms without readers, {shown(found.gap_ms[1])} ms "
        f"with one, the 50 ms between chunks included. Export of {count:,} rows: {found.export_bytes / 1e6:,.0f} MB in "
        f"{found.export_s:.0f} s, {found.grown_bytes / (1 << 20):.1f} MB of memory more."
    )


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    parser.add_argument("--write", type=Path, help="a Markdown file to put the table into, too")
    chosen = parser.parse_args()
    pin()
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-pages-") as scratch, ExitStack() as after:
        folder = Path(scratch)
        programs = Programs(folder)
        for name in [chosen.only] if chosen.only else ["sqlite", "postgres"]:
            (folder / name).mkdir()
            address = None
            if name == "postgres":
                folder.chmod(0o755)
                (folder / "server").mkdir()
                server = Postgres(folder / "server")
                server.start()
                after.callback(server.stop)
                address = server.make("pages")
            found[name] = measure(programs, folder / name, name, address, chosen.rows, chosen.rounds)
            print(words(name, found[name], chosen.rows), file=sys.stderr, flush=True)
    told = "\n\n".join(words(name, one, chosen.rows) for name, one in found.items())
    command = f"bench/pages.py --rows {chosen.rows} --rounds {chosen.rounds}"
    text = f"{figures.table(HEADS, lines(found))}\n\n{told}\n\n{stamp(command)}"
    print(text)
    if chosen.write is not None:
        chosen.write.write_text(figures.replaced(chosen.write.read_text(), PLACE, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
