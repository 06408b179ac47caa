"""The gateway in a process of its own, started as an operator does: `gunicorn wsgi:app`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

TOKEN = "caller-token-7f3a91"
OTHER_TOKEN = "other-caller-token-c2d004"  # another caller, and with static tokens another tenant
PROVIDER_KEY = "sk-provider-0123456789abcdefSECRET"
BRAINTRUST_KEY = "bt-key-5d21c0aa"
ORIGIN = "https://app.example"

TOP = Path(__file__).resolve().parents[2]

#: What stands in the project's top folder when it is cloned, as far as a start needs it. No `.env` is among it.
_CLONED = ("gateway", "gunicorn.conf.py", "wsgi.py")
#: Of the environment of the tests, only this is handed on: no key and no address of a developer's own.
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")

#: gevent replaced by plain threads; else what `gunicorn.conf.py` does where it cannot be read twice.
THREADS_CONF = f"""
import sys
sys.path.insert(0, {str(TOP)!r})
from gateway import serving
serving.configured = True
worker_class, threads, workers, keepalive = "gthread", 64, 1, 5
graceful_timeout = 10
def on_starting(server):
    server.app.wsgi()
def post_worker_init(worker):
    worker.app.wsgi().extensions["gateway"].open()
def worker_exit(server, worker):
    worker.app.wsgi().extensions["gateway"].close()
"""


class Served:
    """One start of the gateway. As a context: ready inside, stopped after.

    Args:
        folder: an empty one; the start's home, log and data are kept in it.
        settings: the environment variables that an operator would set.
        options: further options of gunicorn.
        host: the address to listen at.
        module: the text of a module of the test's own that makes the app, in the place of `wsgi.py`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        options: Sequence[str] = (),
        host: str = "127.0.0.1",
        module: str | None = None,
    ) -> None:
        self.top = top = folder / "top"
        top.mkdir(parents=True)
        for name in _CLONED:
            (top / name).symlink_to(TOP / name)
        name = "wsgi" if module is None else "wsgi_of_a_test"  # the project's own folder is searched first
        if module is not None:
            (top / f"{name}.py").write_text(module)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = folder / "data"
        self._log = folder / "log"
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        environment |= {"HOME": str(folder), "GATEWAY_DATA_DIR": str(self.data_dir), **settings}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("gunicorn"), f"{name}:app", "-b", f"{host}:{self.port}", *options],
                cwd=top,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The master's process id, which is also its session's."""
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The workers that run now; none where the master does not."""
        try:
            return [one for one in psutil.Process(self.pid).children() if not is_gone(one)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, *, workers_too: bool) -> None:
        """Send SIGKILL to the master, or to the whole of it at once."""
        if workers_too:
            os.killpg(self.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait(10)  # or it seems to run for a moment longer

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until it answers that it can serve."""
        end_s = time.monotonic() + timeout_s
        while not self._is_ready():
            assert self._process.poll() is None, f"it did not start:\n{self.log}"
            assert time.monotonic() < end_s, f"not ready within {timeout_s} s:\n{self.log}"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/readiness")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def wait_exit(self, timeout_s: float = 30) -> int:
        """Wait for its end and return the exit status; kill what is left of it where it does not come."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {timeout_s} s:\n{self.log[-4000:]}") from None
        finally:
            self.end()

    def stop(self, timeout_s: float = 30) -> float:
        """Send SIGTERM to the process that was started, wait for its end, and return how long that took."""
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        assert self.wait_exit(timeout_s) == 0, self.log[-4000:]
        return time.monotonic() - began_s

    def end(self) -> None:
        """Kill whatever of it is left."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()
        else:
            self.end()


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; whoever inherits an orphan may be slow to bury it."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
