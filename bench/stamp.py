"""What stands under each table: when, where and of what its figures are."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.processes import TOP

_PACKAGES = ("litellm", "braintrust", "gunicorn", "gevent", "flask")
#: What a figure depends on; a change elsewhere does not make the commit another one.
_MEASURED = ("gateway", "gunicorn.conf.py", "wsgi.py", "uv.lock")


def stamp(command: str) -> str:
    """Say which commit was measured, on which machine, with which releases, and by which command."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.now(UTC).date().isoformat()}, commit {_commit()}, {_processor()}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}; {packages}; `{command}`."
    )


def _commit() -> str:
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_MEASURED)
    return _git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=TOP, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
