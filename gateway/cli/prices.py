"""`gateway prices`: what a model costs, and which models in use have no price."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import without_command
from gateway.cli.check import settings_or_faults
from gateway.cli.screen import columns, printing, visible

if TYPE_CHECKING:
    from gateway.cli.check import Commands
    from gateway.core.pricing import Price, Prices
    from gateway.routes import Table
    from gateway.settings import Settings

    _Priced = tuple[str, str, tuple[tuple[str, str], ...]]

#: Names of models that were called, as `provider/model`, in the operator's ledger.
Called = Callable[["Settings"], Iterable[str]]

_MILLION = 1_000_000


def nobody_called(_settings: Settings) -> Iterable[str]:
    """No model: where no ledger says which were called."""
    return ()


def add(commands: Commands, called: Called = nobody_called) -> None:
    """Add the command `prices`, which has some of its own.

    Args:
        commands: of the program.
        called: names the models that were called, for `check`.
    """
    parser = commands.add_parser("prices", help="show what a model costs, and find models without a price")
    group = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=lambda _options: without_command(parser))

    one = group.add_parser(
        "show",
        help="every price of a model, and where it stands",
        epilog="Exit status: 0 where there is a price, 1 where there is none.",
    )
    one.add_argument("model", help="a name of the routes file, provider/model, or a bare name")
    one.add_argument("--json", action="store_true", help="a JSON object for each deployment, USD for one unit")
    one.set_defaults(run=lambda options: printing(lambda: _show(options.model, as_json=options.json)))

    one = group.add_parser(
        "check",
        help="name the models in use that have no price",
        description="Look at the models of the routes file, and at those that were called. A caller under a budget in "
        "USD is refused a model without a price.",
        epilog="Exit status: 0 where each has a price, 1 where some have none.",
    )
    one.set_defaults(run=lambda _options: printing(lambda: _check(called)))


def _read() -> tuple[Settings, Table, Prices] | None:
    """The configuration; None, with every fault printed, where it cannot be used."""
    from gateway import routes  # noqa: PLC0415  # slow, and `gateway --help` needs none of it
    from gateway.assembly import prices  # noqa: PLC0415
    from gateway.settings import SettingsError  # noqa: PLC0415

    if (settings := settings_or_faults()) is None:
        return None
    try:
        return settings, routes.read(settings), prices(settings)
    except SettingsError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return None


def _show(model: str, *, as_json: bool) -> int:
    if (found := _read()) is None:
        return 1
    _, table, prices = found
    without = 0
    for provider, name, own in _deployments(model, table, prices):
        priced = prices.found(provider, name, own)
        without += priced is None
        if as_json:
            print(json.dumps(_document(provider, name, priced)))
        elif priced is None:
            print(f"{visible(f'{provider}/{name}')}: no price")
        else:
            print(f"{visible(f'{provider}/{name}')}, by {visible(priced[1])}")
            columns(("what", "tier", "prompts above", "USD"), _rows(priced[0]))
    return 1 if without else 0


def _rows(price: Price) -> list[tuple[str, str, str, str]]:
    from gateway.core.pricing import KINDS, shown  # noqa: PLC0415  # as above

    rows = []
    for kind, tier, above, rate in shown(price):
        unit = KINDS[kind.partition(" ")[0]].unit
        usd = f"{_plain(rate * _MILLION)} for 1,000,000 tokens" if unit == "token" else f"{_plain(rate)} a {unit}"
        rows.append((kind, tier or "standard", f"{above:,} tokens" if above else "", usd))
    return rows


def _document(provider: str, name: str, priced: tuple[Price, str] | None) -> dict[str, Any]:
    from gateway.core.pricing import shown  # noqa: PLC0415  # as above

    document: dict[str, Any] = {"provider": provider, "model": name, "price": None, "rates": []}
    if priced is not None:
        price, document["price"] = priced
        document["rates"] = [
            {"kind": kind, "tier": tier or None, "above_tokens": above, "usd": _plain(rate)}
            for kind, tier, above, rate in shown(price)
        ]
    return document


def _plain(amount: Decimal) -> str:
    from gateway.core.calls import plain  # noqa: PLC0415  # as above

    return plain(amount)


def _deployments(model: str, table: Table, prices: Prices) -> list[_Priced]:
    """Provider and model whose price counts for a name: those of the alias, else what the name says."""
    if (alias := table.aliases.get(model)) is not None:
        return list(dict.fromkeys(target.priced for target in alias.targets))
    provider, _, name = model.partition("/")
    if name and prices.found(provider, name) is not None:
        return [(provider, name, ())]
    if (owner := prices.owner(model)) is not None:
        return [(owner, model, ())]
    return [(provider, name, ())] if name else [("?", model, ())]


def _check(called: Called) -> int:
    if (found := _read()) is None:
        return 1
    settings, table, prices = found
    models = _in_use(table, called(settings))
    without = [(name, *place[:2], why) for name, place in models.items() if (why := prices.wants(*place)) is not None]
    if without:
        columns(("model", "provider", "priced as", "why"), without)
    print(f"{len(models) - len(without)} of {len(models)} models in use have a price")
    return 1 if without else 0


def _in_use(table: Table, called: Iterable[str]) -> Mapping[str, _Priced]:
    models: dict[str, _Priced] = {}
    for name, target in table.targets:
        if not target.model.endswith("*"):  # a star stands for models that nobody has named yet
            models[f"{name} ({target.provider}/{target.model})"] = target.priced
    known = {f"{target.provider}/{target.model}": target.priced for _, target in table.targets}
    for name in called:
        provider, _, model = name.partition("/")
        models.setdefault(name, known.get(name) or (provider, model, ()))
    return models
