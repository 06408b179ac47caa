"""An app with everything that is needed to manage it: a database, an admin, virtual keys, a recorder of traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.auth import Authenticator, Verifier
from gateway.auth.keys import VirtualKeys
from gateway.auth.tokens import StaticTokens
from gateway.core.keys import Pepper
from gateway.core.rules import Rule, RuleStanding
from gateway.errors import StoreUnavailable
from gateway.ledger import Ledger
from gateway.ledger.destination import UsageTable
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.counters import AWAY
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.followed import FollowedRules
from gateway.storage.keys import Issued, NewKey
from gateway.storage.lookup import KeyLookup
from gateway.storage.owned import OwnedObjects
from gateway.storage.usage import UsageRows
from gateway.tracing.delivery import Destination, Piece
from gateway.tracing.record import Record
from gateway.upstream.counting import Counting
from gateway.upstream.lanes import Lanes
from gateway.upstream.scripted import Scripted, count
from gateway.upstream.stored import StoredResponses
from tests.builders import TOKEN, Recorder, gateway
from tests.fakes.stores import migrated

JSON = dict[str, Any]

ADMIN_TOKEN = "the-admin-token-of-these-tests"
BOSS = By("tests")


class Counted:
    """Says how rules stand, as a test has set it (core.rules.Standings)."""

    def __init__(self) -> None:
        self.used: dict[tuple[str, ...], int] = {}
        self.away = False

    def of(self, rule: Rule, subject: Sequence[str] = ()) -> RuleStanding:
        if self.away:
            raise StoreUnavailable(AWAY)
        used = self.used.get((rule.id, *subject), 0)
        return RuleStanding(used, max(0, rule.most - used), 1_764_000_060.5)


class AtOnce(Recorder):
    """A sink that delivers as soon as a call has ended, with no spool in between."""

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self._destination = destination

    def write(self, record: Record) -> None:
        super().write(record)
        self._destination.deliver(
            [Piece(row["id"], text) for row, text in zip(record.rows, record.encoded, strict=True)]
        )


class Managed:
    """The app, and what one does with it.

    Args:
        folder: an empty one.
        verifiers: further ways to be known.
    """

    def __init__(self, folder: Path, verifiers: Sequence[Verifier] = ()) -> None:
        migrated(folder / "gateway.db")
        self.database = Database(folder / "gateway.db", patience_s=1.0)
        self.pepper = Pepper(Secret("pepper-of-the-tests"))
        self.directory = Directory.of(self.database, lambda: self.pepper)
        self.keys = VirtualKeys(KeyLookup(self.database), lambda: self.pepper)
        self.traced = Recorder()
        objects = OwnedObjects(self.database, 1, 1 << 20)
        self.gateway = gateway(StoredResponses(Lanes(Counting(count), Scripted()), objects), self.traced)
        self.gateway.objects, self.gateway.directory = objects, self.directory
        self.gateway.upstreams = dict.fromkeys(self.gateway.upstreams, self.gateway.upstreams["litellm"])
        self.usage = UsageRows(self.database)
        self.gateway.ledger = Ledger(AtOnce(UsageTable(self.usage)), self.usage)
        own = [StaticTokens([Secret(ADMIN_TOKEN)], admin=True), StaticTokens([Secret(TOKEN)]), self.keys]
        self.gateway.authenticator = Authenticator([*own, *verifiers])
        self.rules = self.gateway.rules = FollowedRules(self.database)
        self.standings = Counted()
        self.gateway.standings = self.standings
        self.app = create_app(gateway=self.gateway)
        self.client: FlaskClient = self.app.test_client()

    def make(self, name: str = "a key", **wanted: Any) -> Issued:
        """Make a key without asking the API."""
        return self.directory.keys.create(NewKey(name, **wanted), BOSS)

    def ask(self, method: str, path: str, body: Any = None, key: str = ADMIN_TOKEN, **headers: str) -> TestResponse:
        """Send a request; `body` is JSON, or bytes that are none."""
        sent: JSON = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        named = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        return self.client.open(path, method=method, headers=named, **sent)

    def got(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: str) -> Any:
        """Send a request that has to be answered so, and return the JSON of the answer."""
        answer = self.ask(method, path, body, **more)
        assert answer.status_code == status, answer.text
        return answer.json

    def close(self) -> None:
        self.gateway.close(0.1)


def text(issued: Issued) -> str:
    """The key itself."""
    assert issued.secret is not None
    return issued.secret.reveal()
