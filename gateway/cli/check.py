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
    parser = commands.add_parser(
        "check",
        help="check the settings and name every fault at once",
        description="Read the settings as a start would, and say what they come to. Nothing is opened or asked for: "
        "that is what `gateway doctor` does.",
        epilog="Exit status: 0 when they can be used (a warning is no fault), 1 when not.",
    )
    parser.set_defaults(run=lambda _options: _check())


def settings_or_faults() -> Settings | None:
    """Read the settings; print every fault, and return None, where they cannot be used."""
    from gateway.settings import Settings, SettingsError  # noqa: PLC0415  # its table takes a while to build

    try:
        return Settings.from_env(os.environ, Path.cwd())
    except SettingsError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return None


def _check() -> int:
    settings = settings_or_faults()
    if settings is None:
        return 1
    print("\n".join(_summary(settings)))
    return 0


def _summary(settings: Settings) -> list[str]:
    usable = sorted(name for name, credential in settings.credentials.items() if credential.missing is None)
    keys = f"{len(settings.tokens)} in GATEWAY_AUTH_TOKEN"
    if not settings.tokens:
        path = settings.data_dir / "auth-token"
        keys = (
            f"no GATEWAY_AUTH_TOKEN: only this machine may call, with the key in {path} (a first start makes it); a "
            "start on any other address is refused"
        )
    lines = [f"callers' keys: {keys}", f"providers: {', '.join(usable) or 'none'}"]
    for name, credential in sorted(settings.credentials.items()):
        if credential.missing is not None:
            lines.append(f"provider {name}: {credential.missing}")
    if settings.braintrust_api_key is not None:
        lines.append(f"traces: Braintrust, project {settings.braintrust_project}")
    if settings.traces_kept_here:
        more = "" if settings.braintrust_api_key else " (set BRAINTRUST_API_KEY to send them to Braintrust)"
        lines.append(f"traces: kept here, read them with: gateway traces list{more}")
    elif settings.braintrust_api_key is None:
        lines.append("traces: the log, one line a call")
    if settings.stored_responses_days:
        room = f"{settings.stored_responses_days:g} days, {settings.stored_responses_mb:g} MB at most"
        lines.append(f"stored responses: kept here where no provider keeps them ({room})")
    else:
        lines.append("stored responses: with their providers alone")
    lines.append(f"demo models: {'on' if settings.demo_on else 'off'}")
    return lines + [f"warning: {warning}" for warning in settings.warnings]
