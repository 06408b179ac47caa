"""People who sign in to the pages: who they are, by the claims of an ID token, and who of them manages the gateway."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.core.calls import Caller
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, section 2
_LONGEST_EMAIL = 254  # RFC 5321, section 4.5.3.1.3, without its angle brackets
#: ASCII alone: two texts of other letters may look, or be taken for, the same address.
_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")
_MOST_VALUES = 1000


@dataclass(frozen=True)
class Begun:
    """What a browser keeps while its user is at the issuer; each part is of 256 random bits or more.

    Attributes:
        state: comes back with the answer (RFC 6749, section 10.12).
        nonce: stands in the ID token (OpenID Connect Core 1.0, section 15.5.2).
        verifier: whose S256 challenge the issuer was told (RFC 7636, section 4.1).
    """

    state: str
    nonce: str
    verifier: str

    def document(self) -> JSON:
        """The same as JSON, which is the arguments of `Begun`."""
        return asdict(self)


@dataclass(frozen=True)
class Person:
    """Who has signed in.

    Attributes:
        issuer, subject: `iss` and `sub`, which together name one person for ever.
        email: in small letters; None where the issuer told none, or has not verified it.
        held: one of the admins' values (`AdminRule.values`), where the token has any.
    """

    issuer: str
    subject: str
    email: str | None = None
    held: str | None = None

    @property
    def id(self) -> str:
        """What stands in logs and in the audit: `oidc_` and 16 hex digits of issuer and subject."""
        return "oidc_" + hashlib.sha256(f"{self.issuer}\0{self.subject}".encode()).hexdigest()[:16]

    def document(self) -> JSON:
        """The person as JSON, which `kept_person` reads."""
        return {"issuer": self.issuer, "subject": self.subject, "email": self.email, "held": self.held}


@dataclass(frozen=True)
class AdminRule:
    """Who manages the gateway.

    Attributes:
        emails: addresses in small letters, or domains with an `@` in front.
        claim: a claim by name, dots lead into others (`claim_of`); None where none makes anybody an admin.
        values: of which that claim must have one.
    """

    emails: frozenset[str] = frozenset()
    claim: str | None = None
    values: frozenset[str] = frozenset()

    def admits(self, person: Person) -> bool:
        """Whether a person manages the gateway."""
        if person.held in self.values:
            return True
        email = person.email
        return email is not None and not self.emails.isdisjoint((email, f"@{email.rpartition('@')[2]}"))


@dataclass(frozen=True)
class Reader:
    """What a person, or whoever holds a key, sees of the pages.

    Attributes:
        caller: as whom they act.
        callers: whose requests they see, by the ids of callers; None for everybody's.
    """

    caller: Caller
    callers: tuple[str, ...] | None = None


def person_of(said: Mapping[str, Any], rule: AdminRule) -> Person:
    """Read who it is out of the claims of an ID token that was verified (OpenID Connect Core 1.0, sections 2 and 5.1).

    Args:
        said: the claims.
        rule: says which values matter.

    Raises:
        InvalidRequest: `sub` is no text of 1 to 255 printable ASCII characters.
    """
    subject = said.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
        raise InvalidRequest("The issuer does not say who signs in.")
    if not (subject.isascii() and subject.isprintable()):
        raise InvalidRequest("The issuer does not say who signs in.")
    held = _texts(claim_of(said, rule.claim)) if rule.claim is not None else frozenset()
    # one will do, and a cookie has little room
    return Person(str(said["iss"]), subject, _email(said), min(rule.values & held, default=None))


def kept_person(document: Mapping[str, Any]) -> Person:
    """Read what `Person.document` returned."""
    return Person(document["issuer"], document["subject"], document["email"], document["held"])


def claim_of(said: Mapping[str, Any], name: str) -> object:
    """Return a claim; a name with dots is a claim of that name, or the way to one inside others. None for no claim."""
    if name in said:  # such as `https://example.com/roles`, which has dots of its own
        return said[name]
    found: object = said
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def challenge(verifier: str) -> str:
    """The S256 challenge of a code verifier (RFC 7636, section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _email(said: Mapping[str, Any]) -> str | None:
    email, verified = said.get("email"), said.get("email_verified")
    # some issuers write the boolean as a text
    if verified is not True and verified != "true":
        return None
    if not isinstance(email, str) or len(email) > _LONGEST_EMAIL or _EMAIL.fullmatch(email) is None:
        return None
    return email.lower()


def _texts(claim: object) -> frozenset[str]:
    listed = claim if isinstance(claim, list) else [claim]
    return frozenset(value for value in listed[:_MOST_VALUES] if isinstance(value, str))
