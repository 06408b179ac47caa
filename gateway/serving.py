"""What the process around the app needs: settings read once, workers, a first token, the bind check."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import ipaddress
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flask import Flask

from gateway import assembly, logs, routes
from gateway.app import create_app
from gateway.auth.tokens import StaticTokens
from gateway.pipeline import Gateway
from gateway.routes import Table
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError, withdraw
from gateway.tracing.catcher import Catcher
from gateway.upstream import litellm

log = logging.getLogger(__name__)

#: gunicorn stops its master for this one (an app that cannot be loaded), and starts no worker again.
CANNOT_START = 4
_MOST_WORKERS = 4
#: Hosts that are no address to call.
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  # looked for, not listened at
#: Models that the greeting names.
_MOST_NAMED = 20

#: Tokens of the data folder, and the variables that set others.
CALLER, ADMIN = "auth-token", "admin-token"
_VARIABLES = {CALLER: "GATEWAY_AUTH_TOKEN", ADMIN: "GATEWAY_ADMIN_TOKEN"}

#: Set by gunicorn.conf.py, so that wsgi.py can tell that it was read.
configured = False


@cache
def settings() -> Settings:
    """Read the settings once in a process; print every fault and exit where they cannot be used."""
    try:
        return Settings.from_env()
    except SettingsError as error:
        _exit(error.faults)


@cache
def table() -> Table:
    """Read the routes file once in a process; print every fault and exit where it cannot be used."""
    try:
        return routes.read(settings())
    except SettingsError as error:
        _exit(error.faults)


def load_heavy() -> None:
    """Import LiteLLM and Braintrust's patch of it, before anything is configured."""
    litellm.load(Catcher.patch)


def application(whole_answer_s: float | None = None) -> Flask:
    """Build the app that `wsgi:app` names, import what is heavy, and take the credentials out of the environment.

    Args:
        whole_answer_s: the longest that a call may take that is not streamed, where the host sets a bound of its own.
    """
    chosen = settings()
    logs.configure(chosen.log_format, chosen.log_level)
    if not configured and "gunicorn" in os.environ.get("SERVER_SOFTWARE", ""):
        log.error(
            "gunicorn runs without this project's gunicorn.conf.py: streams will block each other, and clients that "
            "leave will not be noticed. Start it where that file is, or with -c <path>/gunicorn.conf.py."
        )
    try:
        assembly.migrate(chosen)
        here = (chosen.workers or workers()) if configured else None
        app = create_app(chosen, whole_answer_s=whole_answer_s, workers=here)
    except SettingsError as error:
        _exit(error.faults)
    for name, value in chosen.identity.items():  # LiteLLM reads a cloud's identity from there alone
        os.environ.setdefault(name, value)
    withdraw(os.environ, table().key_variables)
    gateway: Gateway = app.extensions["gateway"]
    if gateway.preload is not None:
        log.info("importing LiteLLM, which takes some seconds, and more of them the first time")
        gateway.preload()
        gc.collect()
        logs.configure(chosen.log_format, chosen.log_level)  # again: LiteLLM adds handlers of its own at import
    # what is imported stays for good: not looked at again, and not taken apart at the end (seconds of every stop)
    gc.freeze()
    return app


def _exit(faults: Sequence[str]) -> NoReturn:
    for fault in faults:
        sys.stderr.write(f"gateway: {fault}\n")
    raise SystemExit(CANNOT_START)


def workers() -> int:
    """How many workers: as many as there are CPUs for this process, `_MOST_WORKERS` at most."""
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)), _cgroup_cpus()))


def _cgroup_cpus() -> int:
    """The CPUs that the control group allows (cgroup v2, cpu.max: quota and period in microseconds)."""
    try:
        quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").partition(" ")
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return _MOST_WORKERS


def prepare(app: Flask, binds: Sequence[tuple[str, int] | str | int], processes: int = 1) -> None:
    """Make sure that somebody can call, and nobody else: runs once, in the master, when the addresses are known.

    With no token configured, one is made for a gateway that only this machine can reach. Any other start is refused
    where nobody could call either with a key that an admin makes or with a JWT.

    Args:
        app: what `application` built.
        binds: host and port, or the path of a Unix socket.
        processes: how many workers there will be.
    """
    chosen = settings()
    if chosen.counters == "memory" and processes > 1:
        _exit([f"GATEWAY_COUNTERS is memory, which {processes} workers do not share: use one, or another store."])
    gateway: Gateway = app.extensions["gateway"]
    if not chosen.tokens:
        if not all(_is_local(bind) for bind in binds):
            if chosen.manageable:
                return
            _exit(
                [
                    "set GATEWAY_AUTH_TOKEN: this gateway would listen beyond this machine "
                    f"({', '.join(map(_shown, binds))}) with no key to call it. GATEWAY_ADMIN_TOKEN or "
                    "GATEWAY_OIDC_ISSUER will do too."
                ]
            )
        gateway.authenticator.add(StaticTokens([first_token(chosen.data_dir)]))
    if _is_led_in(chosen, binds):
        gateway.authenticator.add(StaticTokens([first_token(chosen.data_dir, ADMIN)], admin=True))


def expect_free(binds: Sequence[tuple[str, int] | str | int], wait_s: float = 4) -> None:
    """Refuse the start in one line where an address cannot be had; gunicorn would say so eleven times.

    Args:
        binds: as `prepare` has them; only those with a port are looked at.
        wait_s: how long an earlier gateway may take to leave.
    """
    until_s = time.monotonic() + wait_s
    for bind in binds:
        while isinstance(bind, tuple) and (fault := _fault_of(bind)) is not None:
            if fault.errno != errno.EADDRINUSE:
                _exit([f"it cannot listen at {_shown(bind)}: {fault.strerror}."])
            if time.monotonic() >= until_s:
                elsewhere = _shown((bind[0], bind[1] % 65535 + 1))
                _exit(
                    [
                        f"{_shown(bind)} is taken by another program, maybe by another gateway. Stop that one, or "
                        f"start this one elsewhere: gunicorn wsgi:app -b {elsewhere}"
                    ]
                )
            time.sleep(0.5)


def _fault_of(bind: tuple[str, int]) -> OSError | None:
    with socket.socket(socket.AF_INET6 if ":" in bind[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        try:
            probe.bind(bind)
        except OSError as error:
            return error
    return None


def _is_led_in(chosen: Settings, binds: Sequence[tuple[str, int] | str | int]) -> bool:
    """Whether the operator is given an admin token and a link to the pages: where nobody else could sign in so."""
    alone = not chosen.tokens and chosen.admin_token is None and chosen.oidc_issuer is None
    return alone and chosen.ui == "on" and all(_is_local(bind) for bind in binds)


def drain_on_sigterm(gateway: Gateway, grace_s: float) -> None:
    """Chain a handler in front of the worker's own: calls that are still under way after `grace_s` get an error.

    gunicorn alone would cut them in silence at its `graceful_timeout`.
    """
    before = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        gateway.drain(grace_s)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, drain)
    signal.siginterrupt(signal.SIGTERM, False)


def _is_local(bind: tuple[str, int] | str | int) -> bool:
    if isinstance(bind, str):
        return True  # a Unix socket
    if not isinstance(bind, tuple):
        return False  # a descriptor that was handed over: nobody here knows where it listens
    host = bind[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(bind: tuple[str, int] | str | int) -> str:
    if not isinstance(bind, tuple):
        return f"unix:{bind}" if isinstance(bind, str) else f"fd://{bind}"
    return f"[{bind[0]}]:{bind[1]}" if ":" in bind[0] else f"{bind[0]}:{bind[1]}"


def first_token(data_dir: Path, name: str = CALLER) -> Secret:
    """Return a token of the data folder, made on the first start: readable by its owner only.

    Args:
        data_dir: the folder.
        name: of the token, `CALLER` or `ADMIN`.
    """
    path = data_dir / name
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            kept = path.read_text(encoding="ascii").strip()
            if not kept:
                _exit([f"{path} is empty: delete it, or set {_VARIABLES[name]}."])
            return Secret(kept)
        token = f"{'sk' if name == CALLER else 'admin'}-local-{secrets.token_hex(24)}"
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token + "\n")
        return Secret(token)
    except (OSError, UnicodeDecodeError) as error:
        _exit([f"no token can be kept in {data_dir}: {error}; set {_VARIABLES[name]} or GATEWAY_DATA_DIR."])


def greet(binds: Sequence[tuple[str, int] | str | int]) -> None:
    """Say what a newcomer needs next: runs once, in the master, when it listens.

    Args:
        binds: as `prepare` has them.
    """
    chosen = settings()
    usable = sorted(name for name, credential in chosen.credentials.items() if credential.missing is None)
    read = f"read them with: {'uv run ' if 'UV' in os.environ else ''}gateway traces list"  # `uv run` sets it
    places = [f"Braintrust, project {chosen.braintrust_project}"] if chosen.braintrust_api_key is not None else []
    if chosen.traces_kept_here:
        places.append(f"{chosen.data_dir} ({read})")
    log.info("traces go to: %s", ", and ".join(places) or "this log alone, one line a call")
    demo_on = table().demo_on(chosen)
    if source := table().source:
        others = "others are answered too" if table().open else "no other name is answered"
        names = list(table().aliases)
        more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
        log.info("models of %s: %s; %s", source, ", ".join([*names[:_MOST_NAMED], *more]), others)
    if usable or demo_on or table().usable:
        none = "none is configured" + ("; the demo models answer" if demo_on else " by variables")
        log.info("providers: %s", ", ".join(usable) or none)
    else:
        log.warning("no model can be called: set a provider's key (OPENAI_API_KEY), or GATEWAY_DEMO=on")
    for name, credential in chosen.credentials.items():
        if credential.missing is not None:
            log.warning("%s cannot be called: %s", name, credential.missing)
    where = next((bind for bind in binds if isinstance(bind, tuple)), None)
    if chosen.tokens or where is None or not all(_is_local(bind) for bind in binds):
        if where is not None:
            base = f"http://{_shown(where if where[0] not in _EVERYWHERE else ('<this machine>', where[1]))}"
            pages = f"; the pages are at {base}/ui" if chosen.ui == "on" else ""
            log.info("ready: the base URL is %s/v1 for OpenAI's clients, %s for Anthropic's%s", base, base, pages)
        return
    token = first_token(chosen.data_dir)
    model = "openai/gpt-4o-mini" if "openai" in usable or not usable else f"{usable[0]}/<model>"
    model = next((name for name in table().aliases if not name.endswith("*")), model)
    if demo_on:
        model = "demo/echo"
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello, gateway!"}}]}}'
    sys.stderr.write(
        "\nReady. No GATEWAY_AUTH_TOKEN is set, so a key was made for this machine alone "
        f"({chosen.data_dir / 'auth-token'}). Try it in another terminal:\n\n"
        f"  curl -N http://{_shown(where)}/v1/chat/completions -H 'Authorization: Bearer {token.reveal()}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}\n\n"
    )
    if chosen.ui == "on":
        # behind the #, so that no server and no log is told
        keys = f"key={token.reveal()}"
        if _is_led_in(chosen, binds):
            keys = f"key={first_token(chosen.data_dir, ADMIN).reveal()}&calls={token.reveal()}"
        sys.stderr.write(f"The gateway's own pages, signed in:\n\n  http://{_shown(where)}/ui/sign-in#{keys}\n\n")


#: glibc's mallopt(3): blocks from this size on are mapped one by one.
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 1 << 20


#: How many objects come before a collection, and how many collections before one of the older objects.
_COLLECTED = (5000, 20, 10)


def suit_many_calls() -> None:
    """Suit this process to many calls at once, also beside bodies of megabytes, of which others shall feel nothing.

    Calls under way are no garbage, and by default Python looks for some each 700 objects, of which every call makes as
    many. Native threads read large bodies: one that works may keep the thread of all streams waiting
    for 1 ms, not 5. And what they took goes back to the system at once: glibc would raise the bound by itself, and then
    keep such blocks.
    """
    gc.set_threshold(*_COLLECTED)
    sys.setswitchinterval(0.001)
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
