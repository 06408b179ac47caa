"""What `gateway doctor` looks at on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from gateway.cli.doctor import Check, Finding
from gateway.cli.serve import home
from gateway.cli.spool import counted, folders
from gateway.settings import Settings, SettingsError

#: These two releases stole credentials.
_BAD_LITELLM = ("1.82.7", "1.82.8")
_SHOWN = ("litellm", "braintrust", "gunicorn", "gevent", "flask")
_PROBE_S = 10.0
_FSYNC_WARN_S = 0.05
_LEAST_FREE_BYTES = 64 << 20
_MOST_LOOKED_AT = 5000
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "fuse", "afs", "virtiofs")
_SHORT_TOKEN = 16

#: Run as `python -c`, since gunicorn's configuration patches the process that reads it.
_PROBE = """
import json, runpy, sys
runpy.run_path(sys.argv[1])
from gevent import monkey
print(json.dumps({"patched": monkey.is_module_patched("threading"), "litellm": "litellm" in sys.modules}), flush=True)
sys.modules["litellm"] = None  # the patch asks it for a provider's name and does without; importing it takes seconds
from types import SimpleNamespace
from gateway.tracing.catcher import Catcher, Held
calls = SimpleNamespace(completion=lambda **_: SimpleNamespace(choices=[], usage=None))
Catcher.patch(calls)
catcher, held = Catcher(), Held("row", "1" * 16, "2" * 32)
catcher.install()
with catcher.holding(held):
    calls.completion(model="openai/mock", messages=[], stream=False)
row = held.row() or {}
print(json.dumps({"caught": row.get("span_parents") == ["1" * 16]}), flush=True)
"""


def always() -> list[Check]:
    """The checks that need no settings."""
    return [Check("packages", _packages)]


def checks(settings: Settings) -> list[Check]:
    """The checks that do."""
    return [
        Check("gunicorn", _gunicorn, _PROBE_S + 1),
        Check("data folder", lambda: _data_folder(settings)),
        Check("database", lambda: _database(settings)),
        Check("spool", lambda: _spool(settings)),
        Check("prices", lambda: _prices(settings)),
        Check("callers", lambda: _callers(settings)),
    ]


def _packages() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    versions = {name: metadata.version(name) for name in _SHOWN}
    saw = ", ".join([f"Python {python}", *(f"{name} {version}" for name, version in versions.items())])
    if versions["litellm"] in _BAD_LITELLM:
        yield Finding("fail", "packages", saw, "this release of litellm steals credentials: remove it, change all keys")
    else:
        yield Finding("ok", "packages", saw)


def _gunicorn() -> Iterator[Finding]:
    try:
        conf = home() / "gunicorn.conf.py"
    except SystemExit as error:
        yield Finding("fail", "gunicorn", str(error).removeprefix("gateway: "), "start where that file is")
        return
    yield Finding("ok", "gunicorn", f"{conf} is found")
    command = [sys.executable, "-c", _PROBE, str(conf)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)  # noqa: S603
        output, told = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        output, told = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or "", "too slow"
    facts: dict[str, bool] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    why = (told.strip().splitlines() or ["no result"])[-1][:200]
    if "patched" not in facts:
        yield Finding("fail", "gevent", f"gunicorn.conf.py cannot be read: {why}", "the gateway would not start")
        return
    if facts["patched"] and not facts["litellm"]:
        yield Finding("ok", "gevent", "threads are patched before LiteLLM is imported")
    else:
        seen = "LiteLLM is imported too early" if facts["litellm"] else "threads are not patched"
        yield Finding("fail", "gevent", seen, "a call would block all others: restore gunicorn.conf.py")
    if facts.get("caught"):
        yield Finding("ok", "patch", "Braintrust's patch wraps our calls, and a mock call's span is caught")
    elif "caught" in facts:
        yield Finding("fail", "patch", "a mock call's span is not caught", "this braintrust release is not supported")
    elif told == "too slow":
        yield Finding("warn", "patch", f"not known within {_PROBE_S:g} s", "this machine is slow")
    else:
        yield Finding(
            "fail", "patch", f"Braintrust's patch of LiteLLM fails: {why}", "traces would lack their LLM spans"
        )


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    existed = folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = folder / f".doctor-{secrets.token_hex(4)}"
        sync_s = _fsync_s(scratch)
    except OSError as error:
        why = f"{folder}: {error.strerror or error}"
        yield Finding(
            "fail", "data folder", why, "the gateway would not start: set GATEWAY_DATA_DIR to one to write to"
        )
        return
    yield Finding("ok", "data folder", f"{folder} {'is there' if existed else 'was made'}, and can be written to")
    yield _owner(folder)
    yield _room(settings)
    saw = f"4 KB are on the disk after {1000 * sync_s:.1f} ms"
    slow = sync_s > _FSYNC_WARN_S
    yield Finding("warn" if slow else "ok", "fsync", saw, "GATEWAY_SPOOL_FSYNC=always would be slow" if slow else "")
    yield _file_system(folder)


def _fsync_s(scratch: Path) -> float:
    """The median time of five."""
    handle = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    times = []
    try:
        for _ in range(5):
            os.write(handle, b"\0" * 4096)
            began_s = time.perf_counter()
            os.fdatasync(handle)
            times.append(time.perf_counter() - began_s)
    finally:
        os.close(handle)
        scratch.unlink()
    return sorted(times)[2]


def _owner(folder: Path) -> Finding:
    """Judge what others can read. A folder that they may not enter hides what is in it."""
    exposed, foreign, looked, left = [], [], 0, [folder]
    while left and looked < _MOST_LOOKED_AT:
        path = left.pop()
        try:
            facts = path.lstat()
            if facts.st_uid != os.geteuid():
                foreign.append(path)
            if path.is_symlink():
                continue
            if path.is_dir():
                left += list(path.iterdir()) if facts.st_mode & 0o011 or path == folder else []
            elif facts.st_mode & 0o044 and folder.stat().st_mode & 0o011:
                exposed.append(path)
        except FileNotFoundError:
            continue
        looked += 1
    mode = f"{folder.stat().st_mode & 0o777:04o}"
    if exposed:
        advice = f"they may hold prompts: chmod 700 {folder}"
        saw = f"others can read {len(exposed)} of its files, such as {exposed[0]}"
        return Finding("warn", "permissions", saw, advice)
    if foreign:
        advice = "run the gateway and its commands as one user"
        return Finding("warn", "permissions", f"{foreign[0]} belongs to user {foreign[0].lstat().st_uid}", advice)
    return Finding("ok", "permissions", f"{folder} is {mode} and ours; others can read nothing in it")


def _room(settings: Settings) -> Finding:
    from gateway.assembly import spool_folder  # noqa: PLC0415
    from gateway.tracing.room import used_bytes  # noqa: PLC0415

    free = shutil.disk_usage(settings.data_dir).free
    wanted = settings.spool_mb * (1 << 20) - used_bytes(spool_folder(settings))
    saw = f"{free >> 20} MB are free; the spool may take {max(0, int(wanted)) >> 20} MB more"
    if free < _LEAST_FREE_BYTES:
        return Finding("fail", "disk", saw, "traces will be lost soon: free some")
    if free < wanted:
        return Finding(
            "warn", "disk", saw, "traces that cannot be delivered for long would fill the disk: lower GATEWAY_SPOOL_MB"
        )
    return Finding("ok", "disk", saw)


def _file_system(folder: Path) -> Finding:
    place, kind = "", ""
    full = os.path.realpath(folder)
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Finding("ok", "file system", "unknown here")
    for line in mounts:
        _device, at, of, *_rest = line.split(" ")
        at = at.replace("\\040", " ")
        if len(at) >= len(place) and (full == at or full.startswith(at.rstrip("/") + "/")):
            place, kind = at, of
    saw = f"{kind} at {place}"
    if kind.startswith(_NETWORK):
        return Finding("warn", "file system", saw, "locks and fsync may not hold here: prefer a local disk")
    if kind in ("overlay", "tmpfs", "ramfs"):
        return Finding("warn", "file system", saw, "goes with its container or at a reboot: mount a volume")
    return Finding("ok", "file system", saw)


def _database(settings: Settings) -> Iterator[Finding]:
    from gateway.storage.database import Database, StorageBusy, StorageFailed  # noqa: PLC0415

    path = settings.database
    if not path.parent.is_dir() or not path.exists():
        yield Finding("ok", "database", f"{path.name} is made at the first start")
        return
    try:
        # a write transaction that writes nothing
        Database(path, patience_s=1).write(lambda connection: connection.exec_driver_sql("PRAGMA schema_version").all())
    except StorageBusy as error:
        yield Finding("warn", "database", str(error), "callers' stored responses wait: look for who holds it")
    except StorageFailed as error:
        advice = "the gateway would not start: mend it, or set GATEWAY_DATA_DIR to another folder"
        yield Finding("fail", "database", str(error), advice)
    else:
        saw = f"{path.name} can be read and written, and takes {path.stat().st_size / (1 << 20):.1f} MB"
        yield Finding("ok", "database", saw)


def _spool(settings: Settings) -> Iterator[Finding]:
    found = folders(settings)
    if not found:
        yield Finding("ok", "spool", "nothing waits")
    for one in found:
        saw = f"{Path(one.folder).name}: {counted(one.waiting_rows, 'row')} waiting, {one.sent} sent so far"
        yield Finding("warn" if one.needs else "ok", "spool", saw, "; ".join(one.needs))
        if one.trouble:
            yield Finding("warn", "spool", f"the sender's last trouble: {one.trouble}", "see `gateway spool status`")


def _prices(settings: Settings) -> Iterator[Finding]:
    from gateway.core.pricing import lacks, price_of  # noqa: PLC0415
    from gateway.prices import own_prices  # noqa: PLC0415
    from gateway.upstream import modelmap  # noqa: PLC0415

    known = sum(price_of(row) is not None for row in modelmap.read().values())
    if settings.prices is None:
        yield Finding("ok", "prices", f"LiteLLM's map has prices of {known} models")
        return
    try:
        own = own_prices(settings)
    except SettingsError as error:
        for fault in error.faults:
            yield Finding("fail", "prices", fault, "the gateway would not start")
        return
    read = {name: price_of(row) for name, row in own.items()}
    without = sorted(name for name, price in read.items() if price is None or lacks(price, mode=own[name].get("mode")))
    saw = f"GATEWAY_PRICES has {len(own) - len(without)} prices, LiteLLM's map {known}"
    if not own:
        yield Finding("warn", "prices", f"{settings.prices} names no model", "LiteLLM's prices are used alone")
    elif without:
        advice = "each needs input_cost_per_token and output_cost_per_token"
        yield Finding("warn", "prices", f"{saw}; no price for {', '.join(without[:5])}", advice)
    else:
        yield Finding("ok", "prices", saw)


def _callers(settings: Settings) -> Iterator[Finding]:
    port = os.environ.get("PORT")
    if settings.tokens:
        short = sum(len(token.reveal()) < _SHORT_TOKEN for token in settings.tokens)
        saw = f"GATEWAY_AUTH_TOKEN has {counted(len(settings.tokens), 'token')}"
        advice = "can be guessed: choose long random ones"
        yield (
            Finding("warn", "callers", f"{saw}, {short} of them short", advice)
            if short
            else Finding("ok", "callers", saw)
        )
    elif port:
        # gunicorn's own default address then
        advice = "such a start is refused: set GATEWAY_AUTH_TOKEN"
        yield Finding("fail", "callers", f"no token, and PORT={port[:8]} means to listen at every address", advice)
    else:
        kept = "is there" if (settings.data_dir / "auth-token").is_file() else "is made at the first start"
        yield Finding("ok", "callers", f"no GATEWAY_AUTH_TOKEN: this machine alone may call, the key {kept}")
    at = int(port) if port and port.isdigit() else 8000
    try:
        socket.create_connection(("127.0.0.1", at), timeout=1).close()
        yield Finding("ok", "port", f"something listens at 127.0.0.1:{at}", "a gateway that runs? another needs --port")
    except (OSError, OverflowError):
        yield Finding("ok", "port", f"127.0.0.1:{at} is free")
