"""All that those need who manage keys, limits and budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.keys import Pepper
from gateway.core.rules import BUDGET, LIMIT
from gateway.storage.accounts import Accounts
from gateway.storage.audit import Audit
from gateway.storage.database import Database
from gateway.storage.keys import Keys
from gateway.storage.owners import Owners
from gateway.storage.rules import Rules


@dataclass(frozen=True)
class Directory:
    """Keys, whom they belong to, what calls are held to, and who changed what."""

    keys: Keys
    projects: Accounts
    users: Accounts
    limits: Rules
    budgets: Rules
    audit: Audit
    owners: Owners

    @classmethod
    def of(cls, database: Database, pepper: Callable[[], Pepper]) -> Directory:
        """The directory of a database. Opens nothing."""
        return cls(
            Keys(database, pepper),
            Accounts(database, "project"),
            Accounts(database, "user"),
            Rules(database, LIMIT),
            Rules(database, BUDGET),
            Audit(database),
            Owners(database),
        )
