"""`gateway doctor`: does everything work that a gateway needs here?"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.screen import visible

if TYPE_CHECKING:
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
One line a check: ok, warn or fail, what it looked at, and what it means and what to do.

No model is called, unless --call names one: then one small request goes through the whole gateway, which costs a few
tokens. With BRAINTRUST_API_KEY set, a trace named "gateway doctor" is sent there.

Exit status: 0 when nothing fails (a warning is no failure), 1 when something does."""

#: For each check that names no other time. They run side by side, so this is about what all of them take.
_CHECK_S = 8.0


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: `ok`, `warn` or `fail`.
        saw: what it looked at, and what is there.
        advice: what that means and what to do; empty where all is well.
    """

    status: str
    check: str
    saw: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.status:4}  {self.check:12} {self.saw}" + (f" – {self.advice}" if self.advice else "")  # noqa: RUF001
        return visible(line)


@dataclass(frozen=True)
class Check:
    """One check: what it does, and how long it may take."""

    name: str
    look: Callable[[], Iterable[Finding]]
    timeout_s: float = _CHECK_S


class Running:
    """A check at work, in a thread of its own: one that hangs, or raises, costs its own line alone."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._end_s = time.monotonic() + check.timeout_s
        self._found: list[Finding] | None = None
        self._thread = threading.Thread(target=self._run, name=f"doctor-{check.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = list(self._check.look())
        except Exception as error:  # noqa: BLE001  # whatever is broken here is what one wants to be told
            self._found = [
                Finding("fail", self._check.name, f"{type(error).__name__}: {error}", "a fault of the check")
            ]

    def findings(self) -> list[Finding]:
        """Wait for what it found."""
        self._thread.join(max(0.0, self._end_s - time.monotonic()))
        if self._found is not None:
            return self._found
        return [Finding("fail", self._check.name, f"no result within {self._check.timeout_s:g} s", "something hangs")]


def add(commands: Commands) -> None:
    """Add the command `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="check settings, disk, clock, providers and Braintrust",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--call", metavar="MODEL", help="send one small request to this model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    hide: Callable[[str], str] = str
    findings: list[Finding] = []
    with _silent():
        settings, found = _settings()
        if settings is not None:
            from gateway import routes  # noqa: PLC0415
            from gateway.assembly import redactor_of  # noqa: PLC0415

            hide = redactor_of(settings, routes.read(settings)).text
        for finding in _all(settings, found, options.call):
            shown = Finding(finding.status, finding.check, hide(finding.saw), hide(finding.advice))
            findings.append(shown)
            if not options.json:
                print(shown, flush=True)
    ok = all(finding.status != "fail" for finding in findings)
    if options.json:
        print(json.dumps({"ok": ok, "checks": [asdict(finding) for finding in findings]}, indent=2))
    return 0 if ok else 1


def _all(settings: Settings | None, found: list[Finding], model: str | None) -> Iterator[Finding]:
    """Start every check at once, and give what they find in their order."""
    yield from found
    from gateway.cli import doctor_here  # noqa: PLC0415

    checks = doctor_here.always()
    if settings is not None:
        from gateway.cli import doctor_afar  # noqa: PLC0415

        checks += [*doctor_here.checks(settings), *doctor_afar.checks(settings)]
    for running in [Running(check) for check in checks]:
        yield from running.findings()
    if settings is not None and model is not None:
        # alone, when the others are done: it takes as long as importing LiteLLM and the model do
        yield from Running(doctor_afar.call(settings, model)).findings()


def _settings() -> tuple[Settings | None, list[Finding]]:
    from gateway import routes  # noqa: PLC0415
    from gateway.settings import Settings, SettingsError  # noqa: PLC0415

    try:
        settings = Settings.from_env(os.environ, Path.cwd())
        table = routes.read(settings)
    except SettingsError as error:
        advice = "mend it where it stands; most other checks wait for this"
        return None, [Finding("fail", "settings", fault, advice) for fault in error.faults]
    usable = sorted(name for name, credential in settings.credentials.items() if credential.missing is None)
    places = ["Braintrust"] if settings.braintrust_api_key is not None else []
    places += ["the data folder"] if settings.traces_kept_here else []
    where = " and ".join(places) or "the log alone"
    saw = f"providers: {', '.join(usable) or 'none'}; traces go to {where}"
    served = bool(usable) or table.usable
    found = [Finding("ok", "settings", saw) if served else _without_providers(settings, "settings", saw)]
    found += [Finding("warn", "settings", warning) for warning in settings.warnings]
    if table.source:
        names, deployments = len(table.aliases), sum(1 for _ in table.targets)
        others = "others are answered too" if table.open else "no other name is answered"
        found.append(
            Finding("ok", "routes", f"{table.source} names {names} models at {deployments} deployments; {others}")
        )
        found += [Finding("warn", "routes", warning) for warning in table.warnings]
    for name, credential in sorted(settings.credentials.items()):
        if credential.missing is not None:
            found.append(Finding("warn", "settings", f"{name} cannot be called", credential.missing))
    return settings, found


def _without_providers(settings: Settings, check: str, saw: str) -> Finding:
    if settings.demo_on:
        return Finding("ok", check, saw, "only the demo models answer")
    return Finding("warn", check, saw, "no model can be called: set a provider's key, or GATEWAY_DEMO=on")


@contextmanager
def _silent() -> Iterator[None]:
    """No line of the log comes between: what matters of it is a finding."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        sys.stdout.flush()
