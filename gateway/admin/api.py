"""All that is managed, and the audit, over HTTP: one blueprint, made from the rows of `core/operations.py`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, g, request

from gateway.core import body, wire
from gateway.core.keys import Key
from gateway.core.operations import MANAGING, PAGE, Operation, check_body, read_query
from gateway.core.paging import Page
from gateway.core.rights import read_rights
from gateway.core.rules import Rule, RuleStanding, Standings
from gateway.errors import InvalidRequest, StoreUnavailable
from gateway.limits.standing import standing
from gateway.storage.accounts import Account, Accounts
from gateway.storage.audit import By
from gateway.storage.database import StorageError
from gateway.storage.directory import Directory
from gateway.storage.documents import account_document, audit_document, issued, key_document, rule_document
from gateway.storage.keys import OVERLAP_S, Issued, KeyChanges, NewKey
from gateway.storage.rules import Rules
from gateway.web import caller, read_body, require

JSON = dict[str, Any]
Answer = tuple[JSON, int]

log = logging.getLogger(__name__)

#: The largest body that is of any use has some 200 kB.
BODY_BYTES = 1 << 20

_LONGEST_NAME = 512  # of a model, which is the longest of what a rule is counted apart for


def blueprint(directory: Directory, standings: Standings | None = None) -> Blueprint:
    """Make the routes.

    Args:
        directory: what is managed.
        standings: says how limits and budgets stand; None where nothing does.
    """
    managing = Managing(directory, standings)
    routes = Blueprint("admin", __name__)
    for row in MANAGING:
        view = require(row.needs)(_view(row, managing.answering(row.name)))
        view.dialect = "openai"  # type: ignore[attr-defined]  # `web` reads it
        routes.add_url_rule(row.path.replace("{id}", "<id>"), row.name.replace(".", "_"), view, methods=[row.method])
    return routes


def _view(row: Operation, answer: Callable[..., Answer]) -> Callable[..., Response]:
    def view(id: str | None = None) -> Response:
        asked = _asked(row)
        try:
            document, status = answer(asked) if id is None else answer(asked, id)
        except StorageError as error:
            log.warning("nothing can be managed", extra={"fields": {"operation": row.name, "why": str(error)}})
            raise StoreUnavailable("The database does not answer; send the request again.") from error
        return Response(wire.dumps(document), status, mimetype=row.media_type)

    return view


def _asked(row: Operation) -> JSON:
    """Read what the row knows, of the body or of the query.

    Raises:
        InvalidRequest: something else was sent, or it cannot be used; names it.
    """
    query = read_query(row, request.args)
    if row.body is None:
        return query
    raw = read_body(BODY_BYTES)
    asked = body.parse(raw) if raw else {}
    check_body(row, asked)
    return asked


class Managing:
    """What each operation does.

    Args:
        directory: what is managed.
        standings: says how limits and budgets stand; None where nothing does.
    """

    def __init__(self, directory: Directory, standings: Standings | None = None) -> None:
        self._keys = directory.keys
        self._audit = directory.audit
        self._accounts = {"project": directory.projects, "user": directory.users}
        self._rules = {"limit": directory.limits, "budget": directory.budgets}
        self._standings = standings

    def answering(self, name: str) -> Callable[..., Answer]:
        """Return what answers an operation: it takes what was asked, and the id where one is in the path."""
        answers: dict[str, Callable[..., Answer]] = {
            "keys.create": self._create_key,
            "keys.list": self._list_keys,
            "keys.show": lambda _asked, id: (_shown(self._keys.show(id)), 200),
            "keys.change": self._change_key,
            "keys.rotate": self._rotate_key,
            "keys.delete": self._delete_key,
            "audit.list": self._list_audit,
        }
        for kind, accounts in self._accounts.items():
            answers |= _answers_of(kind, accounts)
        for kind, rules in self._rules.items():
            answers |= _answers_of_rules(kind, rules, self._standings)
        return answers[name]

    def _create_key(self, asked: JSON) -> Answer:
        wanted = NewKey(
            name=asked["name"],
            rights=read_rights(asked.get("rights", {})),
            project=asked.get("project"),
            user=asked.get("user"),
            parent=asked.get("parent"),
            tags=tuple(asked.get("tags", ())),
            expires_s=asked.get("expires"),
        )
        made = self._keys.create(wanted, _by(), _idempotency())
        return _issued(made, 200 if made.secret is None else 201)

    def _list_keys(self, asked: JSON) -> Answer:
        page = self._keys.page(**{"limit": PAGE, **asked})
        return _list(page, _shown, lambda key: key.id)

    def _change_key(self, asked: JSON, id: str) -> Answer:
        changes: KeyChanges = {}
        if "name" in asked:
            changes["name"] = asked["name"]
        if "rights" in asked:
            changes["rights"] = asked["rights"]
        if "tags" in asked:
            changes["tags"] = tuple(asked["tags"])
        if "expires" in asked:
            changes["expires_s"] = asked["expires"]
        if "disabled" in asked:
            changes["disabled"] = asked["disabled"]
        return _shown(self._keys.change(id, _by(), changes)), 200

    def _rotate_key(self, asked: JSON, id: str) -> Answer:
        return _issued(self._keys.rotate(id, _by(), asked.get("overlap_s", OVERLAP_S)), 200)

    def _delete_key(self, _asked: JSON, id: str) -> Answer:
        self._keys.delete(id, _by())
        return {"object": "key.deleted", "id": id, "deleted": True}, 200

    def _list_audit(self, asked: JSON) -> Answer:
        asked = {"limit": PAGE, **asked}
        asked["before"] = asked.pop("after", None)  # newest first: what comes after is what was before
        return _list(self._audit.page(**asked), audit_document, lambda line: line.seq)


def _answers_of(kind: str, accounts: Accounts) -> Mapping[str, Callable[..., Answer]]:
    def document(account: Account) -> JSON:
        return account_document(kind, account)

    def create(asked: JSON) -> Answer:
        return document(accounts.create(asked["name"], _by(), _idempotency())), 201

    def change(asked: JSON, id: str) -> Answer:
        return document(accounts.change(id, _by(), **asked)), 200

    return {
        f"{kind}s.create": create,
        f"{kind}s.list": lambda asked: _list(accounts.page(**{"limit": PAGE, **asked}), document, lambda one: one.id),
        f"{kind}s.show": lambda _asked, id: (document(accounts.show(id)), 200),
        f"{kind}s.change": change,
    }


def _answers_of_rules(kind: str, rules: Rules, standings: Standings | None) -> Mapping[str, Callable[..., Answer]]:
    def create(asked: JSON) -> Answer:
        return rule_document(rules.create(asked, _by(), _idempotency())), 201

    def page(asked: JSON) -> Answer:
        return _list(rules.page(**{"limit": PAGE, **asked}), rule_document, lambda one: one.rule.id)

    def show(asked: JSON, id: str) -> Answer:
        kept = rules.show(id)
        return rule_document(kept, _standing(standings, kept.rule, asked.get("subject"))), 200

    def change(asked: JSON, id: str) -> Answer:
        return rule_document(rules.change(id, _by(), asked)), 200

    def delete(_asked: JSON, id: str) -> Answer:
        rules.delete(id, _by())
        return {"object": f"{kind}.deleted", "id": id, "deleted": True}, 200

    answers: dict[str, Callable[..., Answer]] = {
        "create": create,
        "list": page,
        "show": show,
        "change": change,
        "delete": delete,
    }
    return {f"{kind}s.{verb}": answer for verb, answer in answers.items()}


def _standing(standings: Standings | None, rule: Rule, subject: str | None) -> RuleStanding | None:
    """How a rule stands; of one that is counted apart, for the subject that is named.

    Raises:
        InvalidRequest: the subject has not the parts that it is counted apart for.
    """
    parts: Sequence[str] = ()
    if subject is not None:
        if not rule.each:
            raise InvalidRequest("subject is for what is counted apart; leave it out.", param="subject")
        parts = subject.split(",", len(rule.each) - 1)
        if len(parts) != len(rule.each) or not all(
            0 < len(one) <= _LONGEST_NAME and one.isprintable() for one in parts
        ):
            has = ", ".join(rule.each)
            raise InvalidRequest(f"subject names {has}, in this order, with commas between.", param="subject")
    return standing(standings, rule, parts)


def _list(page: Page[Any], document: Callable[[Any], JSON], place: Callable[[Any], str | int]) -> Answer:
    """One page; `next` is what to send as `after` for the one behind it, None where there is none."""
    return {
        "object": "list",
        "data": [document(item) for item in page.items],
        "has_more": page.more,
        "next": place(page.items[-1]) if page.more else None,
    }, 200


def _shown(key: Key) -> JSON:
    return key_document(key, time.time())


def _issued(one: Issued, status: int) -> Answer:
    return issued(one, time.time()), status


def _by() -> By:
    known = caller()
    return By(known.id, known.grants, g.request_id)


def _idempotency() -> str | None:
    return request.headers.get("Idempotency-Key")
