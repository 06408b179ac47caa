"""`gateway`: run it, or check its settings. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="gateway", description="An LLM gateway that traces every call.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="command")
    _add_serve(commands.add_parser("serve", help="serve with gunicorn, by the project's gunicorn.conf.py"))
    check = commands.add_parser("check", help="check the settings and name every fault at once")
    check.set_defaults(run=lambda _options: _check())
    options = parser.parse_args(arguments)
    if options.version:
        print(f"gateway {_version()}")
        return 0
    if not hasattr(options, "run"):
        parser.print_help(sys.stderr)
        return 2
    status: int = options.run(options)
    return status


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415  # slow, and only this needs it

    return metadata.version("llm-gateway")


def _add_serve(parser: argparse.ArgumentParser) -> None:
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
    home = _home()
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
        str(home / "gunicorn.conf.py"),
        "--pythonpath",
        str(home),
    ]
    if options.host is not None or options.port is not None:
        host = options.host or "127.0.0.1"
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        command += ["-b", f"{host}:{8000 if options.port is None else options.port}"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "wsgi:app"])  # noqa: S606  # our own arguments, and no shell


def _home() -> Path:
    """Return the folder that has gunicorn.conf.py and wsgi.py: where one starts, else beside this package."""
    places = (Path.cwd(), Path(__file__).resolve().parent.parent)
    for place in places:
        if (place / "gunicorn.conf.py").is_file() and (place / "wsgi.py").is_file():
            return place
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    raise SystemExit(f"gateway: no gunicorn.conf.py with a wsgi.py beside it; looked in {looked}")


def _check() -> int:
    from gateway.settings import Settings, SettingsError  # noqa: PLC0415  # its table takes a while to build

    try:
        settings = Settings.from_env(os.environ, Path.cwd())
    except SettingsError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return 1
    print("\n".join(_summary(settings)))
    return 0


def _summary(settings: Settings) -> list[str]:
    usable = sorted(name for name, credential in settings.credentials.items() if credential.missing is None)
    lines = [f"tokens: {len(settings.tokens)}", f"providers: {', '.join(usable) or 'none'}"]
    if not settings.tokens:
        lines[0] += " (a start on a loopback address makes one; any other start needs GATEWAY_AUTH_TOKEN)"
    for name, credential in sorted(settings.credentials.items()):
        if credential.missing is not None:
            lines.append(f"provider {name}: {credential.missing}")
    if settings.braintrust_api_key is None:
        lines.append("traces: the log, one line a call (set BRAINTRUST_API_KEY to send them to Braintrust)")
    else:
        lines.append(f"traces: Braintrust, project {settings.braintrust_project}")
    lines.append(f"demo models: {'on' if settings.demo_on else 'off'}")
    return lines + [f"warning: {warning}" for warning in settings.warnings]
