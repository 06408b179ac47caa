"""Keys, accounts, rules and audit lines as JSON: the same for who asks over HTTP and for who looks with a command.

All times are seconds since the epoch; no document holds a secret, but for `issued`.
"""

from __future__ import annotations

from typing import Any

from gateway.core.keys import Key
from gateway.core.rules import RuleStanding
from gateway.storage.accounts import Account
from gateway.storage.audit import AuditLine
from gateway.storage.keys import Issued
from gateway.storage.rules import KeptRule

JSON = dict[str, Any]


def key_document(key: Key, now_s: float) -> JSON:
    """Say what is known of a key.

    Args:
        key: any, also one that is deleted.
        now_s: seconds since the epoch, for its state.
    """
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "state": key.state(now_s),
        "rights": key.rights.document(),
        "project": key.project,
        "project_name": key.project_name,
        "user": key.user,
        "user_name": key.user_name,
        "parent": key.parent,
        "tags": list(key.tags),
        "created": key.made_s,
        "created_by": key.made_by,
        "expires": key.expires_s,
        "disabled": key.disabled,
        "used": key.used_s,
        "deleted": key.deleted_s,
        "secrets": [{"ends": ends_s} for ends_s in key.ends_s],
    }


def issued(one: Issued, now_s: float) -> JSON:
    """Say what is known of a key, and the key itself, which is null where it was told before."""
    return {**key_document(one.key, now_s), "key": one.secret.reveal() if one.secret is not None else None}


def account_document(kind: str, account: Account) -> JSON:
    """Say what is known of a project or a user; `kind` is which of them."""
    return {
        "object": kind,
        "id": account.id,
        "name": account.name,
        "created": account.made_s,
        "disabled": account.disabled,
    }


def rule_document(kept: KeptRule, standing: RuleStanding | None = None) -> JSON:
    """Say what is known of a limit or a budget.

    Args:
        kept: any.
        standing: how it stands now; None where that was not asked, or cannot be told.
    """
    return {
        **kept.rule.document(),
        "created": kept.made_s,
        "created_by": kept.made_by,
        "standing": standing.document(kept.rule.measure) if standing is not None else None,
    }


def audit_document(line: AuditLine) -> JSON:
    """Say who changed what."""
    return {
        "object": "audit",
        "seq": line.seq,
        "at": line.at_s,
        "actor": line.actor,
        "action": line.action,
        "kind": line.kind,
        "target": line.target,
        "details": dict(line.details),
        "request_id": line.request_id,
    }
