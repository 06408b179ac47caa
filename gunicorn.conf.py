"""Makes the bare `gunicorn wsgi:app` right. gunicorn reads this file from the folder that it is started in."""

from gevent import monkey

monkey.patch_all()  # before anything else is imported: a lock made earlier would block the whole worker

import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also where the project is not installed

from gateway import logs, serving  # noqa: E402

serving.configured = True
_settings = serving.settings()

worker_class = "gevent"  # thousands of streams in one process; gunicorn's parser in front of them, not gevent's
workers = _settings.workers or serving.workers()
worker_connections = 2000
preload_app = True  # LiteLLM's 200 MB are shared by the workers
max_requests = 0  # recycling a worker cuts its live streams

timeout = 60  # of a worker that does not breathe, not of a request
graceful_timeout = 25
keepalive = 5  # also what bounds slow headers

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16380
# nothing from a peer may change the path or the scheme that auth saw
forwarder_headers = ""
header_map = "drop"
control_socket_disable = True  # it would open one in the home folder

accesslog = None  # the app writes one JSON line a request, also where another server runs it
logconfig_dict = logs.dict_config(_settings.log_format, _settings.log_level)


def on_starting(server: Any) -> None:
    """The addresses are known: check that they are safe, or make a first key."""
    serving.prepare(server.app.wsgi(), server.cfg.address)


def post_worker_init(worker: Any) -> None:
    """After the fork: start what lives in one process, and be ready to end it."""
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
