"""Limits and budgets, for those who manage them: made, listed, shown, changed, deleted."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, func, insert, or_, select, update

from gateway.core.keys import ID_BYTES, new_id
from gateway.core.paging import Page
from gateway.core.rules import MOST_RULES, Match, Rule, changed_rule, is_rule_id, new_rule_id, read_rule
from gateway.errors import Conflict, ObjectNotFound
from gateway.storage.audit import By, note
from gateway.storage.database import Database
from gateway.storage.idempotency import made_as, mark
from gateway.storage.revision import RULES, next_revision
from gateway.storage.tables import keys, projects, rules, users

JSON = dict[str, Any]

_ACCOUNTS: Mapping[str, Table] = {"user": users, "project": projects}


@dataclass(frozen=True)
class KeptRule:
    """A rule, and who made it. `made_s` is seconds since the epoch."""

    rule: Rule
    made_s: float
    made_by: str


class Rules:
    """The rules of one kind.

    Args:
        database: where they are kept.
        kind: `core.rules.LIMIT` or `BUDGET`.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, kind: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._kind = kind
        self._clock = clock

    def create(self, wanted: Mapping[str, Any], by: By, idempotency: str | None = None) -> KeptRule:
        """Make a rule; it is felt by every worker within seconds.

        Args:
            wanted: as `core.rules.read_rule` takes it, without `object` and `id`. A user or project may be named by its
                id or by its name; the id is kept.
            by: who makes it.
            idempotency: the name that `by` gave the request, 1 to 255 characters: asked again under it, what was made
                is returned.

        Raises:
            InvalidRequest: a field cannot be used; names it.
            ObjectNotFound: there is no such key, user or project; names the field.
            Conflict: the key is deleted, there are too many rules, or the same name was given to another request, or
                to one whose rule is deleted.
            StorageError: the database is busy or cannot be written.
        """
        id = new_rule_id(self._kind, new_id(secrets.token_bytes(ID_BYTES)))
        read = read_rule({**wanted, "object": self._kind, "id": id})
        marked, now_s = mark(by, idempotency), self._clock()

        def work(connection: Connection) -> KeptRule:
            next_revision(connection, RULES)
            rule = replace(read, match=_found(connection, read.match))
            details = _audited(rule.document()) | ({} if marked is None else {"idempotency": marked})
            if (made := made_as(connection, self._kind, details)) is not None:
                if (row := self._find(connection, made)) is None:
                    raise Conflict("What this request made is deleted.", param="idempotency-key")
                return _kept(row)
            if connection.execute(select(func.count()).select_from(rules)).scalar_one() >= MOST_RULES:
                raise Conflict(f"There are {MOST_RULES} limits and budgets, and no more can be; delete one first.")
            kept = KeptRule(rule, now_s, by.actor)
            connection.execute(insert(rules).values(_columns(kept)))
            note(connection, by, now_s, "create", self._kind, id, details)
            return kept

        return self._database.write(work)

    def show(self, id: str) -> KeptRule:
        """Return a rule.

        Raises:
            ObjectNotFound: there is none of this kind with that id.
            StorageError: the database is busy or cannot be read.
        """
        return _kept(self._database.read(lambda connection: self._row(connection, id)))

    def page(
        self,
        *,
        key: str | None = None,
        user: str | None = None,
        project: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[KeptRule]:
        """Return some rules, newest first; also those about keys that are deleted, which have no effect any more.

        Args:
            key: only those that name the key with this id.
            user: only those that name the user with this id or name; `project` likewise.
            project: see there.
            after: the id of the last one of the page before this one.
            limit: how many at most.

        Raises:
            ObjectNotFound: `after` names none.
            StorageError: the database is busy or cannot be read.
        """
        conditions: list[ColumnElement[bool]] = [rules.c.kind == self._kind]
        for name, wanted in (("key", key), ("user", user), ("project", project)):
            if wanted is None:
                continue
            if not wanted.isprintable():  # no id or name is such a text, and some no database takes
                return Page((), False)
            named: ColumnElement[bool] = rules.c[name] == wanted
            if (table := _ACCOUNTS.get(name)) is not None:
                named = or_(named, rules.c[name].in_(select(table.c.id).where(table.c.name == wanted)))
            conditions.append(named)

        def work(connection: Connection) -> list[KeptRule]:
            begin: list[ColumnElement[bool]] = []
            if after is not None:
                last = self._row(connection, after)
                older = and_(rules.c.made == last.made, rules.c.id < last.id)
                begin = [or_(rules.c.made < last.made, older)]
            newest = select(rules).where(*conditions, *begin).order_by(rules.c.made.desc(), rules.c.id.desc())
            return [_kept(row) for row in connection.execute(newest.limit(limit + 1))]

        found = self._database.read(work)
        return Page(found[:limit], len(found) > limit)

    def change(self, id: str, by: By, changes: Mapping[str, Any]) -> KeptRule:
        """Change a rule; what it has counted so far stays.

        Args:
            id: of the rule.
            by: who.
            changes: as `core.rules.changed_rule` takes them.

        Raises:
            InvalidRequest: a field cannot be used, or not be changed; names it.
            ObjectNotFound: there is no such rule.
            StorageError: the database is busy or cannot be written.
        """

        def work(connection: Connection) -> KeptRule:
            next_revision(connection, RULES)
            before = _kept(self._row(connection, id))
            after = replace(before, rule=changed_rule(before.rule, changes))
            if after != before:
                connection.execute(update(rules).where(rules.c.id == id).values(_columns(after)))
                old, new = before.rule.document(), after.rule.document()
                different = {name: value for name, value in new.items() if value != old[name]}
                note(connection, by, self._clock(), "change", self._kind, id, _audited(different))
            return after

        return self._database.write(work)

    def delete(self, id: str, by: By) -> None:
        """Delete a rule. The audit keeps what it was.

        Raises:
            ObjectNotFound: there is no such rule.
            StorageError: the database is busy or cannot be written.
        """

        def work(connection: Connection) -> None:
            next_revision(connection, RULES)
            rule = rule_of(self._row(connection, id))
            connection.execute(delete(rules).where(rules.c.id == id))
            note(connection, by, self._clock(), "delete", self._kind, id, _audited(rule.document()))

        self._database.write(work)

    def _find(self, connection: Connection, id: str) -> Row[Any] | None:
        if not is_rule_id(id):
            return None
        mine = select(rules).where(rules.c.id == id, rules.c.kind == self._kind)
        return connection.execute(mine).one_or_none()

    def _row(self, connection: Connection, id: str) -> Row[Any]:
        if (found := self._find(connection, id)) is None:
            raise ObjectNotFound(f"There is no such {self._kind}.", param="id")
        return found


def rule_of(row: Row[Any]) -> Rule:
    """Read a rule from a row of `tables.rules`."""
    return Rule(
        id=row.id,
        kind=row.kind,
        measure=row.measure,
        most=row.most,
        period=row.period,
        match=Match(key=row.key, user=row.user, project=row.project, caller=row.caller, model=row.model),
        each=tuple(json.loads(row.each)),
        name=row.name,
        soft=row.soft,
        webhook=row.webhook,
    )


def _kept(row: Row[Any]) -> KeptRule:
    return KeptRule(rule_of(row), row.made, row.made_by)


def _columns(kept: KeptRule) -> JSON:
    rule = kept.rule
    return {
        "id": rule.id,
        "kind": rule.kind,
        "name": rule.name,
        "measure": rule.measure,
        "most": rule.most,
        "period": rule.period,
        **asdict(rule.match),
        "each": json.dumps(rule.each),
        "soft": rule.soft,
        "webhook": rule.webhook,
        "made": kept.made_s,
        "made_by": kept.made_by,
    }


def _found(connection: Connection, match: Match) -> Match:
    """Say whom a new rule is about by ids, once they are found to be there."""
    if match.key is not None:
        key = connection.execute(select(keys.c.deleted).where(keys.c.id == match.key)).one_or_none()
        if key is None:
            raise _absent("key", match.key)
        if key.deleted is not None:
            raise Conflict("This key is deleted.", param="match.key")
    ids: dict[str, str] = {}
    for name, table in _ACCOUNTS.items():
        wanted = getattr(match, name)
        if wanted is None:
            continue
        either = select(table.c.id).where(or_(table.c.id == wanted, table.c.name == wanted))
        # an id comes first: a name may be spelt like another one's id
        found = connection.execute(either.order_by((table.c.id == wanted).desc())).scalars().first()
        if found is None:
            raise _absent(name, wanted)
        ids[name] = found
    return replace(match, **ids)


def _absent(name: str, wanted: str) -> ObjectNotFound:
    return ObjectNotFound(f"There is no such {name}: {wanted!r}.", param=f"match.{name}")


def _audited(document: JSON) -> JSON:
    """What the audit may have of a rule: the path of many a webhook is all that guards it."""
    shown = {name: value for name, value in document.items() if name not in ("object", "id")}
    if (webhook := shown.get("webhook")) is not None:
        parts = urlsplit(webhook)
        sign = hashlib.sha256(webhook.encode()).hexdigest()[:8]  # tells whether it has become another one
        shown["webhook"] = f"{parts.scheme}://{parts.netloc}/… {sign}"
    return shown
