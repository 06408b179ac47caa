"""What calls are held to: limits of a rate, and budgets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from gateway.core.addresses import is_guarded
from gateway.core.fields import check_name
from gateway.core.rights import LONGEST_ENTRY, MOST_STARS, matches
from gateway.core.windows import LARGEST_AMOUNT
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.core.calls import Caller

JSON = dict[str, Any]

LIMIT = "limit"
BUDGET = "budget"

#: What is counted. Amounts are whole numbers; of money, micro-dollars.
REQUESTS = "requests"
TOKENS = "tokens"
PARALLEL = "parallel"
USD = "usd"
MEASURES = {LIMIT: (REQUESTS, TOKENS, PARALLEL), BUDGET: (USD, TOKENS)}

#: Over which time. A limit's is a sliding window; a budget's begins with the clock (UTC, weeks on Monday).
PERIODS = {LIMIT: ("minute", "day"), BUDGET: ("hour", "day", "week", "month", "total")}

MICRO = 1_000_000

#: How many there may be at once: all of them are in the memory of every worker.
MOST_RULES = 10_000

_PREFIXES = {LIMIT: "lim_", BUDGET: "bud_"}
_ID = re.compile(r"(?:lim|bud)_[0-9a-z]{12}")
_USD = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,6})?", re.ASCII)
_LONGEST_ADDRESS = 2048

#: What a rule can be about, and what it can be counted for apart.
SUBJECTS = ("key", "user", "project", "caller", "model")


@dataclass(frozen=True)
class Match:
    """Which calls a rule is about: those that have all of what is set; all calls where nothing is.

    Attributes:
        key: the id of a virtual key.
        user: the id or the name of a user, and `project` likewise of a project.
        caller: the id of a caller (`core.calls.Caller.id`).
        model: a pattern as in rights, of the name that was asked for or of `provider/model`.
    """

    key: str | None = None
    user: str | None = None
    project: str | None = None
    caller: str | None = None
    model: str | None = None

    def takes(self, caller: Caller, models: Sequence[str]) -> bool:
        """Whether a call is among them.

        Args:
            caller: whose call.
            models: the name that was asked for, and those of the deployments that are planned.
        """
        return (
            self.key in (None, caller.key_id)
            and self.user in (None, caller.user_id, caller.user)
            and self.project in (None, caller.project_id, caller.project)
            and self.caller in (None, caller.id)
            and (self.model is None or any(matches(self.model, model) for model in models))
        )


@dataclass(frozen=True)
class Rule:
    """A limit or a budget.

    Attributes:
        id: `lim_` or `bud_` and 12 digits and small letters; `set_` and a name for one of the settings.
        kind: `LIMIT` or `BUDGET`.
        measure: of `MEASURES`.
        most: how much is allowed, 0 to `core.windows.LARGEST_AMOUNT`; of money, micro-dollars.
        period: of `PERIODS`; None for calls at once.
        match: which calls it is about.
        each: of `SUBJECTS`: for each of them it is counted apart; empty: all calls that it is about share it.
        name: the operator's, for errors and lists.
        soft: the share of a budget, above 0 and below 1, from which on callers and the operator are warned; or None.
        webhook: where the operator is told, an `https` address (`http` on a loopback); None for nowhere.
    """

    id: str
    kind: str
    measure: str
    most: int
    period: str | None = None
    match: Match = field(default_factory=Match)
    each: tuple[str, ...] = ()
    name: str = ""
    soft: float | None = None
    webhook: str | None = None

    def document(self) -> JSON:
        """This rule as JSON, which `read_rule` reads.

        `most` of money is a text of dollars, such as `"12.5"`: no reader's floating point changes it. `match` has what
        is set alone; only a budget has `soft` and `webhook`.
        """
        told: JSON = {
            "object": self.kind,
            "id": self.id,
            "name": self.name,
            "measure": self.measure,
            "most": amount_of(self.measure, self.most),
            "period": self.period,
            "match": {
                name: value
                for name in (one.name for one in fields(Match))
                if (value := getattr(self.match, name)) is not None
            },
            "each": list(self.each),
        }
        return told | ({"soft": self.soft, "webhook": self.webhook} if self.kind == BUDGET else {})


@dataclass(frozen=True)
class RuleStanding:
    """How a rule stands now. Amounts as in `Rule.most`.

    Attributes:
        used: what is counted, with what is reserved for calls under way.
        remaining: what is left of it, 0 at least.
        resets_s: when nothing of it counts any more if nothing else comes, seconds since the epoch; None for never.
    """

    used: int
    remaining: int
    resets_s: float | None

    def document(self, measure: str) -> JSON:
        """This standing as JSON, its amounts as in `Rule.document`."""
        return {
            "used": amount_of(measure, self.used),
            "remaining": amount_of(measure, self.remaining),
            "resets": self.resets_s,
        }


class Standings(Protocol):
    """Says how rules stand."""

    def of(self, rule: Rule, subject: Sequence[str] = ()) -> RuleStanding:
        """Say how a rule stands now.

        Args:
            rule: any.
            subject: for whom or what, where it is counted apart: a value for each of `rule.each`, in its order.

        Raises:
            StoreUnavailable: the counters do not answer.
        """


def amount_of(measure: str, amount: int) -> int | str:
    """Spell an amount: a whole number, or of money (micro-dollars) a text of dollars without zeros at its end."""
    if measure != USD:
        return amount
    whole, rest = divmod(amount, MICRO)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def new_rule_id(kind: str, id: str) -> str:
    """The id of a new rule; `id` is 12 digits and small letters of chance (`core.keys.new_id`)."""
    return _PREFIXES[kind] + id


def is_rule_id(text: str) -> bool:
    """Whether a text can be the id of a rule that is kept."""
    return _ID.fullmatch(text) is not None


def read_rule(document: Mapping[str, Any]) -> Rule:
    """Read a rule that somebody wrote.

    Args:
        document: as `Rule.document`. `object`, `name`, `measure` and `most` are needed, `period` but for calls at once.
            `most` of money is a number or a text of US dollars, with 6 decimals at most.

    Raises:
        InvalidRequest: a field that is unknown, missing or out of its bounds; names it.
    """
    kind = document.get("object")
    if kind not in MEASURES:
        raise InvalidRequest("object must be limit or budget.", param="object")
    known = {"object", "id", "name", "measure", "most", "period", "match", "each"}
    known |= {"soft", "webhook"} if kind == BUDGET else set()
    for field_name in document:
        if field_name not in known:
            raise InvalidRequest(f"{field_name[:64]!r} is no field of a {kind}.", param=field_name[:64])
    name, id = document.get("name"), document.get("id", "")
    check_name(name if isinstance(name, str) else "")
    if not isinstance(id, str):
        raise InvalidRequest("id must be a text.", param="id")
    measure = _one_of("measure", document.get("measure"), MEASURES[kind])
    return Rule(
        id=id,
        kind=kind,
        measure=measure,
        most=read_most(measure, document.get("most")),
        period=_period(kind, measure, document.get("period")),
        match=_match(document.get("match", {})),
        each=_each(document.get("each", ())),
        name=str(name),
        **_warnings(document.get("soft"), document.get("webhook")),
    )


def changed_rule(rule: Rule, changes: Mapping[str, Any]) -> Rule:
    """Return a rule with some fields as somebody wrote them. What it counts, and for whom, stays.

    Args:
        rule: as it is.
        changes: any of `name` and `most`; of a budget also `soft` and `webhook`, where None takes it away.

    Raises:
        InvalidRequest: as `read_rule`, or a field that cannot change.
    """
    for name in changes:
        if name not in ("name", "most", "soft", "webhook"):
            raise InvalidRequest(f"{name[:64]!r} cannot change; make another rule.", param=name[:64])
    return read_rule({**rule.document(), **changes})


def read_most(measure: str, given: object) -> int:
    """Read how much is allowed of a measure, as `Rule.most` has it.

    Raises:
        InvalidRequest: it is none; names `most`.
    """
    amount = _micro_usd(given) if measure == USD else given
    if type(amount) is not int or not 0 <= amount <= LARGEST_AMOUNT:
        most = f"US dollars from 0 to {LARGEST_AMOUNT // MICRO}, with 6 decimals at most"
        most = most if measure == USD else f"a whole number from 0 to {LARGEST_AMOUNT}"
        raise InvalidRequest(f"most must be {most}.", param="most")
    return amount


def _micro_usd(given: object) -> int | None:
    if isinstance(given, str):
        dollars = Decimal(given) if _USD.fullmatch(given) else None
    elif isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= LARGEST_AMOUNT:
        dollars = Decimal(repr(given))  # the shortest text that means this number: what was written
    else:
        dollars = None
    micro = dollars * MICRO if dollars is not None else None
    return int(micro) if micro is not None and micro == int(micro) else None


def _one_of(name: str, given: object, known: Sequence[str]) -> str:
    if not isinstance(given, str) or given not in known:
        raise InvalidRequest(f"{name} must be one of {', '.join(known)}.", param=name)
    return given


def _period(kind: str, measure: str, given: object) -> str | None:
    if measure != PARALLEL:
        return _one_of("period", given, PERIODS[kind])
    if given is not None:
        raise InvalidRequest("Calls at once are counted over no period; leave it out.", param="period")
    return None


def _match(given: object) -> Match:
    known = [one.name for one in fields(Match)]
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"match must be an object; it can have {', '.join(known)}.", param="match")
    for name, value in given.items():
        param = f"match.{name[:64]}"
        if name not in known:
            raise InvalidRequest(f"{param} is not known; there are {', '.join(known)}.", param=param)
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= LONGEST_ENTRY
            or not value.isprintable()
            or value != value.strip()
        ):
            said = f"{param} has 1 to {LONGEST_ENTRY} printable characters, and no blank around them."
            raise InvalidRequest(said, param=param)
    if given.get("model", "").count("*") > MOST_STARS:
        raise InvalidRequest(f"match.model may have {MOST_STARS} stars at most.", param="match.model")
    return Match(**given)


def _each(given: object) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(one in SUBJECTS for one in given):
        raise InvalidRequest(f"each must be a list of some of {', '.join(SUBJECTS)}.", param="each")
    return tuple(subject for subject in SUBJECTS if subject in given)


def _warnings(soft: object, webhook: object) -> JSON:
    if soft is not None and (isinstance(soft, bool) or not isinstance(soft, int | float) or not 0 < soft < 1):
        raise InvalidRequest("soft must be a share of most, above 0 and below 1.", param="soft")
    if webhook is not None:
        if not isinstance(webhook, str) or not is_webhook(webhook):
            said = "webhook must be an https:// address (http:// only on this machine), without user and fragment."
            raise InvalidRequest(said, param="webhook")
        if soft is None:
            raise InvalidRequest("A webhook needs soft: it is told when that share is reached.", param="soft")
    return {"soft": float(soft) if soft is not None else None, "webhook": webhook}


def is_webhook(address: str) -> bool:
    """Whether notices may be sent to an address: by https, or to this machine."""
    if len(address) > _LONGEST_ADDRESS or not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", address) or "#" in address:
        return False
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if port == 0 or parts.username is not None or parts.password is not None:
        return False
    return is_guarded(parts.scheme, host)
