"""`gateway limits` and `gateway budgets`: what calls are held to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import names
from gateway.cli.managing import Group, add_paging, by, print_json, tell, tell_of_more
from gateway.cli.screen import columns, visible, when

if TYPE_CHECKING:
    from gateway.cli.managing import Commands
    from gateway.core.rules import Rule
    from gateway.storage.directory import Directory
    from gateway.storage.rules import KeptRule, Rules

#: As `core/rules.py` has them, which takes a while to import.
LIMIT, BUDGET = "limit", "budget"
MEASURES = {LIMIT: ("requests", "tokens", "parallel"), BUDGET: ("usd", "tokens")}
PERIODS = {LIMIT: ("minute", "day"), BUDGET: ("hour", "day", "week", "month", "total")}

_MATCH = {
    "key": "the id of a virtual key",
    "user": "the id or name of a user",
    "project": "the id or name of a project",
    "caller": "the id of a caller, as in traces",
    "model": "models that are called so, or provider/model; * stands for any text",
}
_MOST_DIGITS = 20
_FIELDS = ("name", "measure", "most", "period", "each", "soft", "webhook")


def add_limits(commands: Commands) -> None:
    """Add the command `limits`."""
    _Rules(commands, LIMIT, "how much may be asked for in a time", lambda directory: directory.limits)


def add_budgets(commands: Commands) -> None:
    """Add the command `budgets`."""
    _Rules(commands, BUDGET, "how much may be spent in a time", lambda directory: directory.budgets)


class _Rules:
    """The commands for rules of one kind."""

    def __init__(self, commands: Commands, kind: str, about: str, of: Callable[[Directory], Rules]) -> None:
        self._kind = kind
        self._of = of
        group = Group(commands, f"{kind}s", f"make, list, change and delete {kind}s: {about}")
        one = group.add("create", f"make a {kind}", self._create)
        one.add_argument("name", help="what it is called")
        measures = MEASURES[kind]
        one.add_argument("--measure", choices=measures, default=measures[0], help=f"what is counted ({measures[0]})")
        one.add_argument("--most", required=True, help=self._amount())
        period = f"over which time{'; not for parallel' if kind == LIMIT else ''}"
        one.add_argument("--period", choices=PERIODS[kind], default=argparse.SUPPRESS, help=period)
        for name, help in _MATCH.items():
            one.add_argument(f"--{name}", dest=f"match_{name}", metavar="X", help=f"about {help}")
        each = f"counted apart for each of these: {', '.join(_MATCH)}"
        one.add_argument("--each", type=names, default=argparse.SUPPRESS, metavar="A,B", help=each)
        self._add_warnings(one)

        one = group.add("list", f"the {kind}s, newest first", self._list)
        for name in ("key", "user", "project"):
            one.add_argument(f"--{name}", metavar="X", help=f"only about {_MATCH[name]}")
        add_paging(one)

        self._add_id(group.add("show", f"all that is known of a {kind}", self._show))
        one = group.add("change", "change what is named; all else stays, and what was counted", self._change)
        self._add_id(one)
        one.add_argument("--name", default=argparse.SUPPRESS, help="what it is called")
        one.add_argument("--most", default=argparse.SUPPRESS, help=self._amount())
        self._add_warnings(one)
        self._add_id(group.add("delete", f"delete a {kind}", self._delete))

    def _amount(self) -> str:
        return f"how much is allowed{', of usd in US dollars' if self._kind == BUDGET else ''}"

    def _add_id(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id", help=f"of the {self._kind}: {self._kind[:3]}_…")

    def _add_warnings(self, parser: argparse.ArgumentParser) -> None:
        if self._kind == BUDGET:
            share = "from which share of it on to warn, such as 0.8; never for no warning"
            parser.add_argument("--soft", type=_share, default=argparse.SUPPRESS, metavar="SHARE", help=share)
            address = "where to tell you then, an https address; never for nowhere"
            parser.add_argument("--webhook", type=_address, default=argparse.SUPPRESS, metavar="URL", help=address)

    def _create(self, directory: Directory, options: argparse.Namespace) -> int:
        match = {name: value for name in _MATCH if (value := getattr(options, f"match_{name}")) is not None}
        wanted = {**_given(options), "match": match}
        return self._print(self._of(directory).create(wanted, by()), options)

    def _list(self, directory: Directory, options: argparse.Namespace) -> int:
        page = self._of(directory).page(
            key=options.key, user=options.user, project=options.project, after=options.after, limit=options.limit
        )
        if options.json:
            for kept in page.items:
                self._print(kept, options)
        elif page.items:
            columns(
                ("id", "name", "most", "about", "each", "made"),
                [
                    (one.rule.id, one.rule.name, _most(one.rule), _about(one.rule), _each(one.rule), when(one.made_s))
                    for one in page.items
                ],
            )
        else:
            tell("There are none.")
        if page.items:
            tell_of_more(page, page.items[-1].rule.id)
        return 0

    def _show(self, directory: Directory, options: argparse.Namespace) -> int:
        return self._print(self._of(directory).show(options.id), options)

    def _change(self, directory: Directory, options: argparse.Namespace) -> int:
        if not (changes := _given(options)):
            tell("gateway: name what is to change; --help lists what can")
            return 2
        return self._print(self._of(directory).change(options.id, by(), changes), options)

    def _delete(self, directory: Directory, options: argparse.Namespace) -> int:
        kept = self._of(directory).show(options.id)
        self._of(directory).delete(options.id, by())
        return self._print(kept, options)

    def _print(self, kept: KeptRule, options: argparse.Namespace) -> int:
        from gateway.storage.documents import rule_document  # noqa: PLC0415  # SQLAlchemy takes a moment

        if options.json:
            # how it stands is known to the counters, which a gateway that runs asks
            print_json({name: value for name, value in rule_document(kept).items() if name != "standing"})
            return 0
        rule = kept.rule
        told = {
            "id": rule.id,
            "name": rule.name,
            "most": _most(rule),
            "about": _about(rule),
            "each": _each(rule),
            "made": f"{when(kept.made_s)} by {kept.made_by}",
        }
        if rule.kind == BUDGET:
            told |= {"soft": f"{rule.soft:g}" if rule.soft is not None else "-", "webhook": rule.webhook or "-"}
        for name, value in told.items():
            print(f"{name:<10} {visible(value)}")
        return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of a rule, as `read_rule` takes it."""
    given = {name: getattr(options, name) for name in _FIELDS if hasattr(options, name)}
    most = given.get("most")
    if most is not None and most.isascii() and most.isdigit() and len(most) <= _MOST_DIGITS:
        given["most"] = int(most)
    return given


def _share(text: str) -> float | None:
    if text == "never":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a share such as 0.8 is needed, or never") from None


def _address(text: str) -> str | None:
    return None if text == "never" else text


def _most(rule: Rule) -> str:
    from gateway.core.rules import amount_of  # noqa: PLC0415  # as above

    amount = str(amount_of(rule.measure, rule.most))
    if rule.period is None:
        return f"{amount} at once"
    return f"{amount} {rule.measure} {'in all' if rule.period == 'total' else f'a {rule.period}'}"


def _about(rule: Rule) -> str:
    return ", ".join(f"{name} {value}" for name, value in rule.document()["match"].items()) or "all calls"


def _each(rule: Rule) -> str:
    return ", ".join(rule.each) or "-"
