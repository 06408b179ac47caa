"""`gateway check`: are the settings right?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gateway.core.routing import Alias, Target
    from gateway.routes import Table
    from gateway.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Add the command `check`."""
    parser = commands.add_parser(
        "check",
        help="check settings and routes file, and name every fault at once",
        description="Read the settings and the routes file as a start would, and say what they come to. Nothing is "
        "opened or asked for: that is what `gateway doctor` does.",
        epilog="Exit status: 0 when they can be used (a warning is no fault), 1 when not.",
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a routes file, and exit")
    parser.set_defaults(run=lambda options: _schema() if options.schema else _check())


def settings_or_faults() -> Settings | None:
    """Read the settings; print every fault, and return None, where they cannot be used."""
    from gateway.settings import Settings, SettingsError  # noqa: PLC0415  # its table takes a while to build

    try:
        return Settings.from_env(os.environ, Path.cwd())
    except SettingsError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return None


def _schema() -> int:
    from gateway.core import routekeys  # noqa: PLC0415  # only this needs it

    print(json.dumps(routekeys.schema(), indent=2))
    return 0


def _check() -> int:
    from gateway import routes  # noqa: PLC0415  # their tables take a while to build
    from gateway.settings import Settings, SettingsError  # noqa: PLC0415

    try:
        settings = Settings.from_env(os.environ, Path.cwd())
        table = routes.read(settings)
    except SettingsError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return 1
    print("\n".join([*_summary(settings, table), *_routes(table)]))
    for warning in (*settings.warnings, *table.warnings):
        print(f"warning: {warning}")
    return 0


def _routes(table: Table) -> list[str]:
    """One line for the routes file, one for each name in it, and one for how often is tried."""
    if not table.source:
        return []
    others = "are answered too" if table.open else "are not answered"
    lines = [f"routes: {table.source}; names that are not in it {others}"]
    for name, alias in table.aliases.items():
        rules = _rules(alias)
        lines.append(f"model {name}: {_deployments(alias)}{f' ({rules})' if rules else ''}")
    trying = table.trying
    rest = f"is left alone for {trying.cooldown_s:g} s after {trying.allowed_fails} failures"
    slow_s = trying.first_content_s
    lines.append(
        f"tries: {trying.retries} more after the first, then {trying.most_fallbacks} fallbacks at most; a deployment "
        f"{rest if trying.cooldown_s else 'is never left alone'}"
        f"{'' if slow_s is None else f'; a stream without content for {slow_s:g} s is tried elsewhere'}"
    )
    return lines


def _deployments(alias: Alias) -> str:
    """The deployments in the order in which they are tried; those that are chosen among stand side by side."""
    from gateway.core.policies import ORDERED, WEIGHTED  # noqa: PLC0415  # as above

    between = ", then " if alias.policy.strategy == ORDERED else " or "
    groups = []
    for order in sorted({one.order for one in alias.targets}):
        group = [one for one in alias.targets if one.order == order]
        weighed = alias.policy.strategy == WEIGHTED and len(group) > 1
        groups.append(between.join(_shown(one) + (f" (weight {one.weight:g})" if weighed else "") for one in group))
    return ", then ".join(groups)


def _shown(target: Target) -> str:
    from gateway.core.policies import Condition  # noqa: PLC0415  # as above

    some = "" if target.condition == Condition() else " (for some calls)"
    return f"{target.provider}/{target.model}{_at(target.reach.api_base)}{some}"


def _rules(alias: Alias) -> str:
    from gateway.core.policies import ORDERED  # noqa: PLC0415  # as above

    policy = alias.policy
    told = [policy.strategy] if policy.strategy != ORDERED and len(alias.targets) > 1 else []
    if policy.sticky is not None:
        told.append(f"the same for each {policy.sticky.removeprefix('header:')}")
    for names, when in (
        (policy.fallbacks, "fallbacks"),
        (policy.context_window_fallbacks, "where the prompt is too long"),
        (policy.content_policy_fallbacks, "where a filter refuses"),
    ):
        if names:
            told.append(f"{when}: {', '.join(names)}")
    return "; ".join(told)


def _at(api_base: str | None) -> str:
    return f" at {urlsplit(api_base).netloc}" if api_base else ""


def _summary(settings: Settings, table: Table) -> list[str]:
    from gateway.settings import told  # noqa: PLC0415  # as above

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
    if settings.database_url is not None:
        lines.append(f"database: {told(settings.database_url)}")
    if settings.redis_url is not None:
        lines.append(f"limits and budgets: counted in {told(settings.redis_url)}")
    if settings.stored_responses_days:
        room = f"{settings.stored_responses_days:g} days, {settings.stored_responses_mb:g} MB at most"
        lines.append(f"stored responses: kept here where no provider keeps them ({room})")
    else:
        lines.append("stored responses: with their providers alone")
    lines.append(f"demo models: {'on' if table.demo_on(settings) else 'off'}")
    return lines
