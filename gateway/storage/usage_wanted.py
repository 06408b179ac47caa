"""Which rows of the ledger are meant, and what is added up of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal_column, or_, select, true

from gateway.core.ledger import ENDED, LOST, TOKENS
from gateway.storage.tables import usage as table

#: What rows are told apart by and is a column.
COLUMNS = {
    "key": table.c.key_id,
    "caller": table.c.caller,
    "model": table.c.model,
    "provider": table.c.provider,
    "deployment": table.c.deployment,
    "operation": table.c.operation,
}


@dataclass(frozen=True)
class Wanted:
    """Which rows are meant: those that have all of what is set.

    Attributes:
        since_s: that began then or later, in seconds since the epoch, and `until_s` before then.
        callers: made by one of these, by their ids.
        key: the id of a virtual key.
        user: the id or the name of a user, and `project` likewise of a project.
        model: as callers name it; `deployment` is the `provider/model` that answered.
        tag: one of the call's tags.
        operation: as `core/endpoints.py` names it.
        named: the model that was asked for or served, or the deployment; `*` stands for any characters.
        status: `404`, `4xx`, `error` (any failure but a caller who left) or `lost`.
        error_code: of the error that it ended with.
        min_cost_nano: cost that much or more, nano-dollars.
        min_took_s: took that long or longer.
    """

    since_s: float | None = None
    until_s: float | None = None
    key: str | None = None
    user: str | None = None
    project: str | None = None
    caller: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    tag: str | None = None
    operation: str | None = None
    named: str | None = None
    status: str | None = None
    error_code: str | None = None
    min_cost_nano: int | None = None
    min_took_s: float | None = None
    callers: tuple[str, ...] | None = None

    @property
    def is_all(self) -> bool:
        """Whether all rows of a time are meant, which are added up beforehand."""
        return replace(self, since_s=None, until_s=None) == Wanted()


def whose(key: str | None, user: str | None, project: str | None, caller: str | None) -> list[ColumnElement[bool]]:
    """Say whose rows are meant; a user or project by id or name."""
    found: list[ColumnElement[bool]] = []
    if key is not None:
        # by the caller's id too, since there is an index of those
        found += [table.c.key_id == key, table.c.caller == f"key_{key}"]
    if user is not None:
        found.append(or_(table.c.user_id == user, table.c.user == user))
    if project is not None:
        found.append(or_(table.c.project_id == project, table.c.project == project))
    if caller is not None:
        found.append(table.c.caller == caller)
    return found


def conditions(wanted: Wanted, dialect: str) -> list[ColumnElement[bool]]:
    """Say which rows are meant, in the words of a dialect."""
    found = whose(wanted.key, wanted.user, wanted.project, wanted.caller)
    if wanted.callers is not None:
        found.append(table.c.caller.in_(wanted.callers))
    if wanted.since_s is not None:
        found.append(table.c.started >= wanted.since_s)
    if wanted.until_s is not None:
        found.append(table.c.started < wanted.until_s)
    for name in ("model", "provider", "deployment", "operation"):
        if (value := getattr(wanted, name)) is not None:
            found.append(COLUMNS[name] == value)
    if wanted.tag is not None:
        each = tags_of(dialect)
        found.append(select(true()).select_from(each).where(each.c.value == wanted.tag).exists())
    if wanted.named is not None:
        found.append(or_(*(_like(column, wanted.named) for column in _NAMES)))
    if wanted.status is not None:
        found.append(_status(wanted.status))
    if wanted.error_code is not None:
        found.append(table.c.error_code == wanted.error_code)
    if wanted.min_cost_nano is not None:
        found.append(table.c.cost_nano >= wanted.min_cost_nano)
    if wanted.min_took_s is not None:
        found.append(table.c.ended - table.c.started >= wanted.min_took_s)
    return found


_NAMES = (table.c.model, table.c.served_model, table.c.deployment)


def _like(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    if "*" not in pattern:
        return column == pattern
    spelt = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
    return column.like(spelt, escape="\\")


def _status(asked: str) -> ColumnElement[bool]:
    """Compare with a status.

    Raises:
        ValueError: it is none.
    """
    if asked == "lost":
        return table.c.state == LOST
    if asked == "error":
        return FAILED
    if len(asked) == 3 and asked.isascii() and asked[0].isdigit() and asked[1:] == "xx":
        return table.c.status.between(int(asked[0]) * 100, int(asked[0]) * 100 + 99)
    if not (len(asked) == 3 and asked.isascii() and asked.isdigit()):
        raise ValueError(f"{asked} is no status; one is 404, 4xx, error or lost")
    return table.c.status == int(asked)


def tags_of(dialect: str) -> Any:
    """The tags of a row, as a table with one column `value`."""
    if dialect == "postgresql":
        return func.jsonb_array_elements_text(literal_column("usage.tags::jsonb")).table_valued("value", name="tag")
    return func.json_each(table.c.tags).table_valued("value", name="tag")


FAILED = and_(table.c.error_code.is_not(None), table.c.caller_gone.is_not(true()))
AGGREGATES = (
    func.count().label("requests"),
    func.coalesce(func.sum(case((FAILED, 1), else_=0)), 0).label("failed"),
    func.coalesce(func.sum(case((table.c.state == LOST, 1), else_=0)), 0).label("lost"),
    *(func.coalesce(func.sum(table.c[name]), 0).label(name) for name in TOKENS),
    func.coalesce(func.sum(table.c.cost_nano), 0).label("cost_nano"),
    func.coalesce(func.sum(case((and_(table.c.cost_nano.is_(None), table.c.state == ENDED), 1), else_=0)), 0).label(
        "unpriced"
    ),
)
