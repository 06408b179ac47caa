"""Processes of a benchmark: pinned to a core, measured from outside, and ended by whoever started them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

JSON = dict[str, Any]

TOP = Path(__file__).resolve().parents[1]
#: The gateway runs on the one, all that asks and answers it on the other: neither takes the other's time.
GATEWAY_CORE, LOAD_CORE = 0, 1

_PSS = {
    "Pss": re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE),
    "Pss_Anon": re.compile(r"^Pss_Anon:\s+(\d+) kB", re.MULTILINE),
}
#: Of the environment, only this is handed on: no key and no address of a developer's own.
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
_LEAST_POSTED_S = 1.0


def pin() -> None:
    """Keep this process, and what it starts, away from the gateway's core.

    Raises:
        SystemExit: this machine has one core only.
    """
    if not {GATEWAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise SystemExit(f"cores {GATEWAY_CORE} and {LOAD_CORE} are needed: the gateway has one for itself")
    os.sched_setaffinity(0, {LOAD_CORE})


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside, by this thread, runs on that core from its first instruction."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def clean_environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that must know nothing of who starts it."""
    handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return {**handed_on, "HOME": str(home), **more}


class Process:
    """A program that runs until this context is left; its output goes to a file.

    Args:
        name: for messages and for the file of its output.
        core: the one that it runs on.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], core: int
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self.began_s = time.monotonic()
        with self._log.open("wb") as log, on_core(core):
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=clean_environment(folder, environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """The end of what it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def tree(self) -> list[psutil.Process]:
        """The process that was started, and all below it."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds that all its processes have used, in user and in kernel mode, of all threads."""
        spent_s = 0.0
        for one in self.tree():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                spent_s += times.user + times.system
        return spent_s

    def pss_bytes(self) -> int:
        """Memory of all its processes; what they share is counted once (proc(5), smaps_rollup)."""
        return sum(pss_bytes(one.pid) for one in self.tree())

    def own_bytes(self) -> int:
        """Memory that its processes have written: other programs that begin to use the same files do not change it."""
        return sum(pss_bytes(one.pid, "Pss_Anon") for one in self.tree())

    def largest_pss_bytes(self) -> int:
        """Memory of the one of its processes that has the most."""
        return max(pss_bytes(one.pid) for one in self.tree())

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            RuntimeError: it has ended.
        """
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with {status}:\n{self.log}")

    def wait_for(self, ready: Callable[[], bool], timeout_s: float) -> float:
        """Wait until `ready`, and return how long after the start that was.

        Raises:
            RuntimeError: it ended, or it did not come to that in time.
        """
        while not ready():
            self.check()
            if time.monotonic() - self.began_s > timeout_s:
                raise RuntimeError(f"{self.name} is not ready after {timeout_s:g} s:\n{self.log}")
            time.sleep(0.02)
        return time.monotonic() - self.began_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end by itself and is killed", file=sys.stderr)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


def run_and_waited_s(pid: int) -> tuple[float, float]:
    """How long a process's first thread has run, and how long it could have but had no core (proc(5), schedstat)."""
    ran_ns, waited_ns, _turns = map(int, Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split())
    return ran_ns / 1e9, waited_ns / 1e9


def pss_bytes(pid: int, kind: str = "Pss") -> int:
    """Memory of one process; 0 for one that has ended.

    Args:
        pid: its id.
        kind: `Pss`, or `Pss_Anon`, the part of it that is of no file.
    """
    try:
        found = _PSS[kind].search(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * int(found[1]) if found else 0


def post(port: int, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float = 30.0) -> tuple[int, bytes]:
    """Send one request on a connection of its own.

    Returns:
        Status and body.

    Raises:
        OSError, HTTPException: there was no answer.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a call is answered with 200; a gateway that only begins to start answers nothing."""
    try:
        return post(port, path, body, headers)[0] == 200
    except (OSError, HTTPException):
        return False


class Programs:
    """The provider and the load generator of bench/load, built into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("provider", "generator"):
            source = TOP / "bench" / "load" / f"{name}.c"
            subprocess.run(["cc", "-O2", "-o", str(folder / name), str(source)], check=True)

    def provider(self, posted: Path | None = None) -> Provider:
        """Start the provider, which is a Braintrust as well; `posted` is where the rows that it gets are kept."""
        return Provider(self._folder, posted)

    def load(self, port: int, path: str, body: JSON, headers: Mapping[str, str], *options: str) -> JSON:
        """Run the load generator (its options are in `bench/load/generator.c`) and return what it found.

        Raises:
            subprocess.SubprocessError: it failed, or did not end.
        """
        file = self._folder / f"body-{os.getpid()}.json"
        file.write_bytes(json.dumps(body, separators=(",", ":")).encode())
        shown = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        command = [str(self._folder / "generator"), "-p", str(port), "-u", path, "-b", str(file), *shown, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
        found: JSON = json.loads(done.stdout)
        return found


class Provider(Process):
    """The provider of bench/load as a context: it listens inside."""

    def __init__(self, folder: Path, posted: Path | None) -> None:
        self.port = free_port()
        self.posted = posted
        kept = [str(posted)] if posted is not None else []
        super().__init__("provider", [str(folder / "provider"), str(self.port), *kept], folder, {}, LOAD_CORE)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables that send the gateway's calls and traces here."""
        return {
            "OPENAI_API_KEY": "sk-bench-provider",
            "OPENAI_API_BASE": f"{self.url}/v1",
            "BRAINTRUST_API_KEY": "bt-bench-key",
            "BRAINTRUST_APP_URL": self.url,
            "BRAINTRUST_API_URL": self.url,
        }

    def __enter__(self) -> Self:
        try:
            self.wait_for(partial(answers, self.port, "/v1/chat/completions", b"{}", {}), 10)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def wait_delivered(self, timeout_s: float = 60.0) -> None:
        """Wait until no more rows come: the gateway's sender looks for new ones ten times a second.

        Raises:
            RuntimeError: they still come after `timeout_s`.
        """
        end_s = time.monotonic() + timeout_s
        size_bytes, since_s = self._posted_bytes(), time.monotonic()
        while time.monotonic() - since_s < _LEAST_POSTED_S:
            if time.monotonic() > end_s:
                raise RuntimeError(f"traces still come {timeout_s:g} s after the load")
            time.sleep(0.1)
            if (now_bytes := self._posted_bytes()) != size_bytes:
                size_bytes, since_s = now_bytes, time.monotonic()

    def _posted_bytes(self) -> int:
        return self.posted.stat().st_size if self.posted is not None else 0

    def traces(self) -> int:
        """How many calls the rows so far tell the end of, each counted once."""
        ended = set()
        if self.posted is not None:
            with self.posted.open("rb") as lines:
                for line in lines:
                    ended |= {row["root_span_id"] for row in json.loads(line)["rows"] if _is_ended_root(row)}
        return len(ended)


def _is_ended_root(row: JSON) -> bool:
    return row["span_attributes"].get("type") == "task" and "end" in row.get("metrics", {})
