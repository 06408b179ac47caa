"""`gateway serve`: the same as `gunicorn wsgi:app`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Add the command `serve`."""
    parser = commands.add_parser("serve", help="serve with gunicorn, by the project's gunicorn.conf.py")
    parser.description = (
        "The same as `gunicorn wsgi:app` with the project's gunicorn.conf.py. What is not given comes from "
        "the environment, then from .env."
    )
    parser.add_argument("--host", help="the address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=_port, help="the port to listen at (8000)")
    parser.add_argument("--workers", type=_workers, metavar="N", help="worker processes (WEB_CONCURRENCY)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="LOG_LEVEL")
    parser.add_argument("--log-format", choices=("json", "pretty"), help="LOG_FORMAT")
    parser.set_defaults(run=_serve)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError("at least 1 worker is needed")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    """Become gunicorn. Nothing after `os.execv` runs, so that signals reach gunicorn itself."""
    top = home()
    given = {
        "WEB_CONCURRENCY": options.workers,
        "LOG_LEVEL": options.log_level,
        "LOG_FORMAT": options.log_format,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    # No --chdir: `.env` and the data folder belong to where one starts, not to where the code lies.
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        str(top / "gunicorn.conf.py"),
        "--pythonpath",
        str(top),
    ]
    if options.host is not None or options.port is not None:
        host = options.host or "127.0.0.1"
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        command += ["-b", f"{host}:{8000 if options.port is None else options.port}"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "wsgi:app"])  # noqa: S606  # our own arguments, and no shell


def home() -> Path:
    """Return the folder that has gunicorn.conf.py and wsgi.py: where one starts, else beside this package."""
    places = (Path.cwd(), Path(__file__).resolve().parents[2])
    for place in places:
        if (place / "gunicorn.conf.py").is_file() and (place / "wsgi.py").is_file():
            return place
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    raise SystemExit(f"gateway: no gunicorn.conf.py with a wsgi.py beside it; looked in {looked}")
