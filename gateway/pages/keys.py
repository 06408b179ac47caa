"""Virtual keys, projects and users, for those who manage them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import g, make_response, redirect, render_template, request, url_for

from gateway.auth.keys import caller_of
from gateway.core.keys import Key
from gateway.core.rights import CALL, SCOPES, read_rights
from gateway.core.rules import BUDGET, PERIODS, USD, read_rule
from gateway.errors import Conflict, GatewayError, InvalidRequest
from gateway.ledger.reports import month_began_s
from gateway.pages.limits import Standing, by_session, standing_of
from gateway.pages.sign_in import Route
from gateway.pages.state import admins_only
from gateway.pipeline import Gateway
from gateway.storage.audit import By
from gateway.storage.database import StorageError
from gateway.storage.directory import Directory
from gateway.storage.keys import OVERLAP_S, Issued, KeyChanges, NewKey
from gateway.storage.usage import Sums, Wanted

_PAGE = 50
_MOST_ACCOUNTS = 200
_MOST_SPENT = 10_000
_MOST_AUDITED = 20
_MOST_RULES = 20

JSON = dict[str, Any]


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes; there are none where nobody can be managed."""
    directory = gateway.directory
    if directory is None:
        return {}

    def listed() -> Any:
        admins_only()
        return _list(gateway, directory)

    def create() -> Any:
        by = by_session()
        try:
            wanted, budget = _new_key(request.form), _budget(request.form)  # both are read before one is made
            made = directory.keys.create(wanted, by, request.form.get("once") or None)
            if made.secret is None:
                raise Conflict("This key was made before, and told then. Rotate it where it was lost.")
            if budget is not None:
                _held_to(directory, made.key, budget, by)
        except GatewayError as error:
            return make_response(_list(gateway, directory, error=error, asked=request.form), error.http_status)
        return _list(gateway, directory, issued=made)

    def account() -> Any:
        by = by_session()
        kept = directory.users if request.form.get("kind") == "user" else directory.projects
        try:
            kept.create(request.form.get("name", "").strip(), by, request.form.get("once") or None)
        except GatewayError as error:
            return make_response(_list(gateway, directory, account_error=error), error.http_status)
        return redirect(url_for("pages.keys"))

    def shown(id: str) -> Any:
        admins_only()
        return _one(gateway, directory, id)

    def change(id: str) -> Any:
        by = by_session()
        action = request.form.get("action", "")
        try:
            if action == "rotate":
                return _one(gateway, directory, id, issued=directory.keys.rotate(id, by, _overlap_s(request.form)))
            if action == "delete":
                directory.keys.delete(id, by)
                return redirect(url_for("pages.keys"))
            if action in ("disable", "enable"):
                directory.keys.change(id, by, {"disabled": action == "disable"})
            elif action == "change":
                directory.keys.change(id, by, _changes(request.form))
            else:
                raise InvalidRequest("Nothing was asked for.", param="action")
        except GatewayError as error:
            return make_response(_one(gateway, directory, id, error=error), error.http_status)
        return redirect(url_for("pages.key", id=id))

    return {
        "keys": ("/keys", ("GET",), listed),
        "keys_create": ("/keys", ("POST",), create),
        "accounts_create": ("/accounts", ("POST",), account),
        "key": ("/keys/<id>", ("GET",), shown),
        "key_change": ("/keys/<id>", ("POST",), change),
    }


def _list(
    gateway: Gateway,
    directory: Directory,
    *,
    issued: Issued | None = None,
    error: GatewayError | None = None,
    account_error: GatewayError | None = None,
    asked: Mapping[str, str] | None = None,
) -> str:
    page = directory.keys.page(
        deleted=request.args.get("deleted") == "1", after=request.args.get("after") or None, limit=_PAGE
    )
    return render_template(
        "keys.html",
        keys=page.items,
        following=page.items[-1].id if page.more else None,
        spent=_spent(gateway, page.items),
        now_s=time.time(),
        projects=directory.projects.page(limit=_MOST_ACCOUNTS).items,
        users=directory.users.page(limit=_MOST_ACCOUNTS).items,
        scopes=sorted(SCOPES),
        call=CALL,
        issued=issued,
        error=error,
        account_error=account_error,
        asked=asked,
        once=g.request_id,
        periods=PERIODS[BUDGET],
    )


def _one(
    gateway: Gateway,
    directory: Directory,
    id: str,
    *,
    issued: Issued | None = None,
    error: GatewayError | None = None,
) -> str:
    key = directory.keys.show(id)
    return render_template(
        "key.html",
        key=key,
        now_s=time.time(),
        spent=_spent(gateway, [key]).get(id),
        audited=directory.audit.page(kind="key", target=id, limit=_MOST_AUDITED).items,
        issued=issued,
        error=error,
        overlap_min=OVERLAP_S / 60,
        standings=_rules_of(gateway, key),
    )


def _spent(gateway: Gateway, keys: Sequence[Key]) -> Mapping[str, Sums]:
    """What each key has spent this month."""
    rows = gateway.ledger.rows
    if rows is None or not keys:
        return {}
    since_s = month_began_s(time.time())
    if len(keys) == 1:
        return {keys[0].id: rows.report(Wanted(since_s=since_s, key=keys[0].id)).total}
    found = rows.report(Wanted(since_s=since_s), ["key"], limit=_MOST_SPENT)
    return {id: one for one in found.groups if (id := one.by["key"]) is not None}


def _new_key(form: Mapping[str, str]) -> NewKey:
    rights: dict[str, object] = {"scopes": [scope for scope in sorted(SCOPES) if form.get(f"scope.{scope}")]}
    if models := _listed(form.get("models", "")):
        rights["models"] = models
    return NewKey(
        name=form.get("name", "").strip(),
        rights=read_rights(rights),
        project=form.get("project") or None,
        user=form.get("user") or None,
        tags=tuple(_listed(form.get("tags", ""))),
        expires_s=_expires_s(form.get("expires", "")),
    )


def _budget(form: Mapping[str, str]) -> JSON | None:
    """What a key may spend, as `core.rules.read_rule` reads it; None where nothing was asked for.

    Raises:
        InvalidRequest: that is no budget; names the field.
    """
    most = form.get("budget", "").strip()
    if not most:
        return None
    budget: JSON = {
        "name": form.get("name", "").strip(),
        "measure": USD,
        "most": most,
        "period": form.get("budget_period") or "month",
    }
    try:
        read_rule({**budget, "object": BUDGET})
    except InvalidRequest as error:
        raise InvalidRequest(f"Budget: {error.message}", param="budget") from None
    return budget


def _held_to(directory: Directory, key: Key, budget: JSON, by: By) -> None:
    """Hold a new key to a budget; without it, it would spend without end, so then there is no key either."""
    try:
        directory.budgets.create({**budget, "match": {"key": key.id}}, by)
    except (GatewayError, StorageError):
        directory.keys.delete(key.id, by)
        raise


def _rules_of(gateway: Gateway, key: Key) -> list[Standing]:
    """The limits and budgets that a key is held to, and how they stand for it."""
    if gateway.rules is None:
        return []
    caller = caller_of(key, None)
    gateway.rules.poll()  # a budget that was made with the key is to be seen at once
    return [standing_of(gateway, rule, caller) for rule in gateway.rules.about(caller)[:_MOST_RULES]]


def _changes(form: Mapping[str, str]) -> KeyChanges:
    return {
        "name": form.get("name", "").strip(),
        "rights": {"models": _listed(form.get("models", "")) or ["*"]},
        "tags": tuple(_listed(form.get("tags", ""))),
        "expires_s": _expires_s(form.get("expires", "")),
    }


def _listed(text: str) -> list[str]:
    """Names with commas or ends of lines between."""
    return [name for part in text.replace("\n", ",").split(",") if (name := part.strip())]


def _expires_s(text: str) -> float | None:
    """The end of a day (UTC), as an `<input type="date">` gives one; None for none."""
    if not text.strip():
        return None
    try:
        day = datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no day.", param="expires") from None
    return day.timestamp() + 86_400


def _overlap_s(form: Mapping[str, str]) -> float:
    text = form.get("overlap_min", "").strip()
    try:
        return float(text) * 60 if text else OVERLAP_S
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no number of minutes.", param="overlap_min") from None
