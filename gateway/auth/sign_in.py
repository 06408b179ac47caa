"""People who sign in to the pages at an issuer: who they are, and what they see."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.auth.code_flow import CodeFlow
from gateway.core.calls import Caller
from gateway.core.people import AdminRule, Begun, Person, Reader, person_of
from gateway.core.rights import ADMIN, METRICS, Rights
from gateway.errors import NotPermitted
from gateway.storage.owners import Owners

#: Of an admin: the same as of the admin token.
_MANAGING = Rights(frozenset({ADMIN, METRICS}))
#: Of all others: they look, and call with keys.
_LOOKING = Rights(frozenset(), models=(), endpoints=())


class SignIn:
    """The way in for people.

    Args:
        flow: to the issuer.
        rule: who of them manages the gateway.
        owners: whose keys are whose.
    """

    def __init__(self, flow: CodeFlow, rule: AdminRule, owners: Owners) -> None:
        self._flow = flow
        self._rule = rule
        self._owners = owners

    @property
    def place(self) -> str:
        """Where people sign in, as they are told: the issuer's host."""
        return urlsplit(self._flow.issuer).hostname or self._flow.issuer

    def close(self) -> None:
        """Stop what runs beside requests; safe to call again."""
        self._flow.close()

    def begin(self, redirect_uri: str) -> tuple[str, Begun]:
        """Begin; see `CodeFlow.begin`."""
        return self._flow.begin(redirect_uri)

    def finish(self, begun: Begun, answer: Mapping[str, str], redirect_uri: str) -> Person:
        """Say who has come back from the issuer.

        Raises:
            InvalidRequest, StoreUnavailable: see `CodeFlow.finish`.
        """
        return person_of(self._flow.finish(begun, answer, redirect_uri), self._rule)

    def reader(self, person: Person) -> Reader:
        """Say what a person sees by what is so now.

        Raises:
            NotPermitted: nothing: they are of another issuer, or neither an admin nor a user who is not disabled.
            StorageError: the database is busy or cannot be read.
        """
        if person.issuer != self._flow.issuer:
            raise NotPermitted("This gateway has another issuer now; sign in again.")
        if self._rule.admits(person):
            name = person.email or person.id
            return Reader(Caller(person.id, person.id, kind="admin", rights=_MANAGING, user=name))
        owner = self._owners.of_email(person.email) if person.email is not None else None
        if person.email is None:
            raise NotPermitted("You have signed in, and the issuer has verified no e-mail address of yours.")
        if owner is None:
            raise NotPermitted(
                f"You have signed in as {person.email}, and no user of this gateway has that name. Whoever manages it "
                "can make one."
            )
        if owner.disabled:
            raise NotPermitted(f"You have signed in as {person.email}, and that user is disabled here.")
        caller = Caller(person.id, person.id, kind="person", rights=_LOOKING, user=owner.name, user_id=owner.id)
        return Reader(caller, tuple(f"key_{id}" for id in owner.keys))
