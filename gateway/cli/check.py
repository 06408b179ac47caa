"""`gateway check`: are the settings right?"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Add the command `check`."""
    parser = commands.add_parser("check", help="check the settings and name every fault at once")
    parser.set_defaults(run=lambda _options: _check())


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
    if settings.braintrust_api_key is not None:
        lines.append(f"traces: Braintrust, project {settings.braintrust_project}")
    if settings.traces_kept_here:
        more = "" if settings.braintrust_api_key else " (set BRAINTRUST_API_KEY to send them to Braintrust)"
        lines.append(f"traces: kept here, for gateway traces{more}")
    elif settings.braintrust_api_key is None:
        lines.append("traces: the log, one line a call")
    if settings.stored_responses_days:
        room = f"{settings.stored_responses_days:g} days, {settings.stored_responses_mb:g} MB at most"
        lines.append(f"stored responses: kept here where no provider keeps them ({room})")
    else:
        lines.append("stored responses: with their providers alone")
    lines.append(f"demo models: {'on' if settings.demo_on else 'off'}")
    return lines + [f"warning: {warning}" for warning in settings.warnings]
