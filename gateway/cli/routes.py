"""`gateway routes explain`: which deployments would be tried for a call, and why."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import names, without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import columns, printing, visible

if TYPE_CHECKING:
    from gateway.core.calls import Call
    from gateway.pipeline import Gateway

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

JSON = dict[str, Any]

#: Nobody waits for an answer meanwhile.
_PATIENCE_S = 5.0

_HELP = """\
Read the settings and the routes file as a start would, and say what would be tried for a request, in which order, why,
and what it may cost. Nothing is sent, and no gateway has to run: every deployment counts as well. What a gateway that
runs would do now, it says itself: POST /v1/preflight with the same body. With --tenant it says whether the cache that
workers share would answer, by the headers given and the settings.

BODY is a file with the JSON of a request, or - for the standard input."""


def add(commands: Commands) -> None:
    """Add the command `routes`."""
    parser = commands.add_parser("routes", help="say where calls go")
    verbs = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))
    explain = verbs.add_parser(
        "explain",
        help="say which deployments would be tried for a request, and why",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 when something would be tried, 1 when nothing can be.",
    )
    explain.add_argument("body", metavar="BODY", help="a file with the request's JSON, or -")
    explain.add_argument("--tags", type=names, default=(), metavar="A,B", help="the call has these tags")
    explain.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="the request has this header; repeatable"
    )
    explain.add_argument("--tenant", help="look into the cache for this tenant (docs/caching.md)")
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    explain.set_defaults(run=lambda options: printing(lambda: _explain(options)))


def _explain(options: argparse.Namespace) -> int:
    if (settings := settings_or_faults()) is None:
        return 1
    from gateway import assembly  # noqa: PLC0415  # slow, and only this needs it
    from gateway.core.preview import preview  # noqa: PLC0415
    from gateway.errors import GatewayError  # noqa: PLC0415
    from gateway.settings import SettingsError  # noqa: PLC0415

    try:
        gateway = assembly.build(settings)
        call = _call(gateway, options)
        plan = gateway.health.look(call, gateway.catalogue)
    except SettingsError as error:
        return _failed("\n".join(error.faults))
    except GatewayError as error:
        return _failed(error.message)
    except OSError as error:
        return _failed(f"{options.body} cannot be read: {error.strerror or error}")
    told = preview(call, plan, gateway.catalogue, gateway.health.of, gateway.health.price)
    told["cache"] = None
    if options.tenant is not None and gateway.cache is not None and settings.cache_store != "memory":
        try:
            told["cache"] = gateway.cache.look(call, plan.attempts, gateway.catalogue.revision, patience_s=_PATIENCE_S)
        except GatewayError as error:  # the request's Idempotency-Key is another's
            return _failed(error.message)
        finally:
            gateway.cache.close()
        if gateway.cache.stores.failing:
            return _failed("the store of the cache does not answer: see `gateway cache show`")
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        _print(told)
    return 0


def _failed(why: str) -> int:
    print(visible(why, "\n"), file=sys.stderr)
    return 1


def _call(gateway: Gateway, options: argparse.Namespace) -> Call:
    from gateway.core import body, cachekey  # noqa: PLC0415  # as above
    from gateway.core.calls import Call, Caller  # noqa: PLC0415
    from gateway.core.endpoint import PROVIDER_HEADERS  # noqa: PLC0415
    from gateway.core.operations import PREFLIGHT, check_body  # noqa: PLC0415
    from gateway.core.preview import endpoint_of  # noqa: PLC0415

    asked = body.parse(sys.stdin.buffer.read() if options.body == "-" else Path(options.body).read_bytes())
    check_body(PREFLIGHT, asked)
    pairs = (header.partition(":") for header in options.header)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    endpoint = endpoint_of(asked, gateway.catalogue, anthropic="anthropic-version" in headers)
    return Call(
        id="req_" + "0" * 32,
        endpoint=endpoint,
        caller=Caller("explain", options.tenant or "explain"),
        body=asked,
        model=asked["model"].strip(),
        stream=asked.get("stream") is True,
        started_s=time.time(),
        arrived_s=time.monotonic(),
        deadline_s=time.monotonic() + gateway.limits.timeout_s,
        tags=tuple(options.tags),
        headers=headers,
        provider_headers={name: headers[name] for name in PROVIDER_HEADERS if name in headers},
        cache=gateway.cache.wish_of(headers.get) if gateway.cache is not None else None,
        name=cachekey.name_of(headers.get, endpoint.name),
    )


def _print(told: JSON) -> None:
    how = f"by {told['routed_by']}" if told["routed_by"] else "as it stands: no name of the routes file"
    lines = [f"model {told['model']}: {how}", f"prompt: about {told['prompt_tokens']} tokens"]
    if told["needs"]:
        lines.append(f"needs: {', '.join(told['needs'])}")
    if told["cache"] is not None:
        lines.append(f"cache: {_cached(told['cache'])}")
    print("\n".join(visible(line) for line in lines))
    for title, part in (
        ("tried", "attempts"),
        ("tried where the prompt is too long", "if_too_long"),
        ("tried where a content filter refuses", "if_refused"),
    ):
        if told[part]:
            print(f"\n{title}, in this order:")
            columns(
                ("deployment", "name", "why", "price in USD"),
                [(one["deployment"], one["name"], one["why"] or "-", _price(one["price_usd"])) for one in told[part]],
            )
    if told["left_out"]:
        print("\nleft out:")
        columns(("name", "why"), [(one["name"], one["why"]) for one in told["left_out"]])


def _cached(cache: JSON) -> str:
    if cache["answer"] == "hit":
        return f"hit, {cache['age_s']:g} s old, kept for {cache['ttl_s']:g} s yet"
    return f"miss, to be kept for {cache['ttl_s']:g} s" if cache["ttl_s"] is not None else str(cache["answer"])


def _price(price: JSON | None) -> str:
    return "unknown" if price is None else f"{price['least']:.6f} to {price['most']:.6f}"
