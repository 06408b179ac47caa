"""Makes the bare `gunicorn wsgi:app` right. gunicorn reads this file from the folder that it is started in."""

import gc
import sys
from importlib import metadata

from gevent import monkey


def _patch() -> None:
    """Patch the standard library, with a single look for plugins of gevent among the installed packages.

    gevent reads what all of them say of themselves once for each of 25 events: a quarter of the start of a gateway that
    relays.
    """
    asked, found = metadata.entry_points, metadata.entry_points()
    metadata.entry_points = found.select
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = asked


def _import_httpx() -> None:
    """Import httpx without its command line, for which it imports rich and Pygments: a twentieth of the start."""
    sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the import system's word for "there is none"
    try:
        import httpx  # noqa: F401, PLC0415
    finally:
        del sys.modules["httpx._main"]


_patch()  # before anything else is imported: a lock made earlier would block the whole worker
if "prometheus_client" not in sys.modules:  # else SIGHUP: nothing is imported any more
    gc.disable()  # what is imported is no garbage, and looking for some takes a fifth of the start

import atexit  # noqa: E402
import fcntl  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_MEMORY = "/dev/shm"  # noqa: S108  # counting must not wait for a disk
_PREFIX = "gateway-metrics-"
_LOCK = ".lock"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def _remove_abandoned(place: str) -> None:
    """Delete folders of ours whose processes were all killed: nobody else would, and they may be in memory."""
    for folder in Path(place).glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # no folder, just being made, or gone meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # in use
        finally:
            os.close(lock)


def _share_metrics() -> OSError | None:
    """Make the folder in which the workers count, and return why it could not be made.

    A fresh one for each master: numbers of an earlier one, of which a process id may come again, are not ours.
    """
    if "prometheus_client" in sys.modules:
        return None  # SIGHUP: this file is read again, and the workers go on counting where they did
    os.environ.pop(_FOLDER, None)  # SIGUSR2: the older master's
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
    try:
        _remove_abandoned(place)
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        # locked before it has its name; never closed, so that it ends with the last process of this master
        lock = os.open(f"{folder}/.new", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(f"{folder}/.new", f"{folder}/{_LOCK}")
    except OSError as error:
        return error
    os.environ[_FOLDER] = folder
    # not on_exit, which is left out when a start is refused
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return None


_alone = _share_metrics()  # before prometheus_client is imported: it looks for the folder then, and never again

from prometheus_client import multiprocess  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also where the project is not installed

_import_httpx()

from gunicorn.glogging import Logger  # noqa: E402

from gateway import logs, serving  # noqa: E402
from gateway.worker import Worker  # noqa: E402

serving.configured = True
_settings = serving.settings()


worker_class = Worker  # thousands of streams in one process; gunicorn's parser in front of them, not gevent's
workers = _settings.workers or serving.workers()
worker_connections = 2000
preload_app = True  # LiteLLM's 200 MB are shared by the workers
max_requests = 0  # recycling a worker cuts its live streams

timeout = 60  # of a worker that does not breathe, not of a request
graceful_timeout = 25
keepalive = 5  # also what bounds slow headers, counted anew from their first piece

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16380
# nothing from a peer may change the path or the scheme that auth saw
forwarder_headers = ""
header_map = "drop"
control_socket_disable = True  # it would open one in the home folder


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log without its line for each request."""

    def access(self, *_request: Any) -> None:
        """Nothing: the app writes one JSON line a request itself, also where another server runs it."""


accesslog = None
logger_class = _Log
logconfig_dict = logs.dict_config(_settings.log_format, _settings.log_level)


def on_starting(server: Any) -> None:
    """The addresses are known: check that they are safe, or make a first key."""
    if _alone is not None:
        server.log.warning("no folder can be made (%s): /metrics shows the numbers of one worker alone", _alone)
    serving.prepare(server.app.wsgi(), server.cfg.address, server.cfg.workers)
    gc.enable()
    if not (server.master_pid or "LISTEN_FDS" in os.environ or server.cfg.reuse_port):  # else it is handed sockets
        serving.expect_free(server.cfg.address)


def when_ready(server: Any) -> None:
    """It listens: say what can be done now."""
    serving.greet(server.cfg.address)


def post_fork(server: Any, worker: Any) -> None:
    """The folder of the metrics is the master's to remove."""
    atexit.unregister(shutil.rmtree)


def child_exit(server: Any, worker: Any) -> None:
    """However a worker ended, what it counted stays and what it had under way is under way no more."""
    if _FOLDER in os.environ:
        multiprocess.mark_process_dead(worker.pid)


def post_worker_init(worker: Any) -> None:
    """After the fork: start what lives in one process, and be ready to end it."""
    gc.enable()  # also where the app was not loaded before the fork
    serving.suit_many_calls()
    gateway = worker.app.wsgi().extensions["gateway"]
    gateway.open()
    # the 3 s that are left are for the error events and the traces
    serving.drain_on_sigterm(gateway, max(0, worker.cfg.graceful_timeout - 3))


def worker_int(worker: Any) -> None:
    """SIGINT or SIGQUIT: gunicorn would exit at once, in the middle of every answer."""
    worker.app.wsgi().extensions["gateway"].close()


def worker_abort(worker: Any) -> None:
    """The worker did not breathe for `timeout` seconds; what can still be handed over is, before it is killed."""
    worker.app.wsgi().extensions["gateway"].close(timeout_s=0.5)


def worker_exit(server: Any, worker: Any) -> None:
    """However it ends (SIGTERM, a master that is gone): end the last calls, hand over the last traces."""
    worker.app.wsgi().extensions["gateway"].close()
