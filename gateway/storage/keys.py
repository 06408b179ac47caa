"""Virtual keys, for those who manage them: made, shown, changed, rotated, deleted.

A key itself is told once, when it is made or rotated. What stays is a keyed hash of it, so that neither the database
nor a copy of it can tell one.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, false, func, insert, or_, select, update

from gateway.core.fields import check_name
from gateway.core.keys import ID_BYTES, SECRET_BYTES, Key, Pepper, could_name, is_id, new_id
from gateway.core.paging import Page
from gateway.core.rights import Rights, entries_of, kept_rights, read_rights
from gateway.errors import Conflict, InvalidRequest, ObjectNotFound, RightsExceeded
from gateway.secret import Secret
from gateway.storage.audit import By, note
from gateway.storage.database import Database
from gateway.storage.idempotency import digest, mark
from gateway.storage.keyrows import WITH_OWNERS, key_of
from gateway.storage.revision import MOST_GENERATIONS, next_revision, touch
from gateway.storage.tables import key_secrets, keys, projects, users

JSON = dict[str, Any]

#: How long the secret before it is still good after a rotation, where nothing else is said, and at most.
OVERLAP_S = 86_400.0
LONGEST_OVERLAP_S = 30 * 86_400.0

_MOST_SECRETS = 5  # of a key at once
#: Three days before the year 10000, which no clock can write: some zones are half a day ahead, and Python's looks a day
#: further for a change to winter time.
_LATEST_S = 253_402_041_600.0


@dataclass(frozen=True)
class NewKey:
    """A key as it is to be. What the fields are says `Key`."""

    name: str
    rights: Rights = field(default_factory=Rights)
    project: str | None = None
    user: str | None = None
    parent: str | None = None
    tags: Sequence[str] = ()
    expires_s: float | None = None


class KeyChanges(TypedDict, total=False):
    """What may become different; what is left out stays, also a list of rights that are given as JSON."""

    name: str
    rights: Rights | Mapping[str, Any]
    tags: Sequence[str]
    expires_s: float | None
    disabled: bool


@dataclass(frozen=True)
class Issued:
    """A key, and how it is written; `secret` is None where that was told before, to the same request."""

    key: Key
    secret: Secret | None


class Keys:
    """All virtual keys.

    Args:
        database: where they are kept.
        pepper: returns what they are hashed with; asked when it is first needed.
        clock: seconds since the epoch.
    """

    def __init__(
        self, database: Database, pepper: Callable[[], Pepper], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    def create(self, wanted: NewKey, by: By, idempotency: str | None = None) -> Issued:
        """Make a key.

        Args:
            wanted: what it is to be; one that hangs from another has that one's project and user where it names none.
            by: who makes it.
            idempotency: the name that `by` gave the request, 1 to 255 characters: asked again under it, the key that
                was made is returned, without its secret.

        Raises:
            InvalidRequest: a field cannot be used; names it.
            ObjectNotFound: there is no such project, user or parent.
            RightsExceeded: it would have more rights than `by` may give, or than its parent.
            Conflict: the same name was given to another request, or the parent is deleted.
            StorageError: the database is busy or cannot be written.
        """
        now_s = self._clock()
        _check_fields(wanted.name, wanted.tags, wanted.expires_s)
        if wanted.expires_s is not None and wanted.expires_s <= now_s:
            raise InvalidRequest("A key that has expired already is of no use.", param="expires")
        read_rights(wanted.rights.document())
        _within(wanted.rights, by)
        marked, asked = mark(by, idempotency), digest(_asked(wanted))
        pepper, id = self._pepper(), new_id(secrets.token_bytes(ID_BYTES))
        secret = pepper.key(id, secrets.token_bytes(SECRET_BYTES))

        def work(connection: Connection) -> Issued:
            revision = next_revision(connection)
            if marked is not None:
                known = connection.execute(select(keys).where(keys.c.idempotency == marked)).one_or_none()
                if known is not None:
                    if known.request != asked:
                        raise Conflict("Another request had this idempotency key.", param="idempotency-key")
                    return Issued(self._show(connection, known.id), None)
            row = _placed(connection, wanted) | {
                "id": id,
                "name": wanted.name,
                "rights": _json(wanted.rights.document()),
                "tags": _json(list(wanted.tags)),
                "made": now_s,
                "made_by": by.actor,
                "expires": wanted.expires_s,
                "disabled": False,
                "revision": revision,
                "idempotency": marked,
                "request": asked,
            }
            connection.execute(insert(keys).values(row))
            self._keep_secret(connection, pepper, id, secret, now_s)
            note(connection, by, now_s, "create", "key", id, _asked(wanted))
            return Issued(self._show(connection, id), secret)

        return self._database.write(work)

    def show(self, id: str) -> Key:
        """Return a key, also one that is deleted.

        Raises:
            ObjectNotFound: there is none with that id.
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: self._show(connection, id))

    def page(
        self,
        *,
        project: str | None = None,
        user: str | None = None,
        parent: str | None = None,
        deleted: bool = False,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Key]:
        """Return some keys, newest first.

        Args:
            project: only of the project with this id; `user` and `parent` likewise.
            user: see there.
            parent: see there.
            deleted: also those that are deleted.
            after: the id of the last one of the page before this one.
            limit: how many at most.

        Raises:
            ObjectNotFound: `after` names none.
            StorageError: the database is busy or cannot be read.
        """
        conditions: list[ColumnElement[bool]] = [] if deleted else [keys.c.deleted.is_(None)]
        for column, wanted in ((keys.c.project, project), (keys.c.user, user), (keys.c.parent, parent)):
            if wanted is not None:
                conditions.append(column == wanted if could_name(wanted) else false())

        def work(connection: Connection) -> list[Key]:
            begin: list[ColumnElement[bool]] = []
            if after is not None:
                last = _row(connection, after)
                older = and_(keys.c.made == last.made, keys.c.id < last.id)
                begin = [or_(keys.c.made < last.made, older)]
            wanted = (
                WITH_OWNERS.where(*conditions, *begin).order_by(keys.c.made.desc(), keys.c.id.desc()).limit(limit + 1)
            )
            return self._keys(connection, connection.execute(wanted).all())

        found = self._database.read(work)
        return Page(found[:limit], len(found) > limit)

    def names(self, ids: Collection[str]) -> dict[str, str]:
        """Return what the keys with these ids are called, also those that are deleted; unknown ones are left out.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        asked = select(keys.c.id, keys.c.name).where(keys.c.id.in_([id for id in ids if is_id(id)]))
        return self._database.read(lambda connection: {row.id: row.name for row in connection.execute(asked)})

    def change(self, id: str, by: By, changes: KeyChanges) -> Key:
        """Change a key; it is felt by every worker within seconds.

        Args:
            id: of the key.
            by: who; no key can be changed that has more rights than it may give.
            changes: what becomes different.

        Raises:
            InvalidRequest: a field cannot be used; names it.
            ObjectNotFound: there is no such key.
            RightsExceeded: of this key, of `by`, or of one that hangs from it, which must be narrowed first.
            Conflict: the key is deleted.
            StorageError: the database is busy or cannot be written.
        """
        _check_fields(changes.get("name"), changes.get("tags", ()), changes.get("expires_s"))
        rights = changes.get("rights")
        if rights is not None:
            read_rights(rights.document() if isinstance(rights, Rights) else rights)

        def work(connection: Connection) -> Key:
            revision = next_revision(connection)
            before = self._manageable(connection, id, by)
            wanted: JSON = {**changes}
            if rights is not None:
                # what is left out is as it is now, within this transaction: two changes at once are both kept
                wanted["rights"] = rights if isinstance(rights, Rights) else read_rights(rights, of=before.rights)
                _within(wanted["rights"], by)
            after = {name: value for name, value in wanted.items() if value != getattr(before, name)}
            if "rights" in after:
                _fits_its_family(connection, before, wanted["rights"])
            if after:
                connection.execute(update(keys).where(keys.c.id == id).values(**_columns(after)))
                touch(connection, keys.c.id == id, revision)
                note(connection, by, self._clock(), "change", "key", id, _columns(after, text=False))
            return self._show(connection, id)

        return self._database.write(work)

    def rotate(self, id: str, by: By, overlap_s: float = OVERLAP_S) -> Issued:
        """Give a key a new secret. The one before it is good for a while yet, so that nobody is cut off.

        Args:
            id: of the key, which stays.
            by: who; no key can be rotated that has more rights than it may give.
            overlap_s: for how long, 0 to `LONGEST_OVERLAP_S`; secrets that were to end sooner do.

        Raises:
            InvalidRequest: the overlap is out of bounds.
            ObjectNotFound: there is no such key.
            RightsExceeded: the key has more rights than `by` may give.
            Conflict: the key is deleted.
            StorageError: the database is busy or cannot be written.
        """
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            raise InvalidRequest(f"The overlap is 0 to {LONGEST_OVERLAP_S:g} seconds.", param="overlap_s")
        pepper = self._pepper()
        secret = pepper.key(id, secrets.token_bytes(SECRET_BYTES)) if is_id(id) else Secret("")

        def work(connection: Connection) -> Issued:
            revision, now_s = next_revision(connection), self._clock()
            self._manageable(connection, id, by)
            mine = key_secrets.c.key == id
            ends = now_s + overlap_s
            useless = or_(key_secrets.c.ends <= now_s, key_secrets.c.pepper != pepper.name)
            connection.execute(delete(key_secrets).where(mine, useless))
            later = or_(key_secrets.c.ends.is_(None), key_secrets.c.ends > ends)
            connection.execute(update(key_secrets).where(mine, later).values(ends=ends))
            if overlap_s == 0:
                connection.execute(delete(key_secrets).where(mine))
            newest = select(key_secrets.c.hash).where(mine).order_by(key_secrets.c.made.desc())
            old = connection.execute(newest.offset(_MOST_SECRETS - 1)).scalars().all()
            connection.execute(delete(key_secrets).where(key_secrets.c.hash.in_(old)))
            self._keep_secret(connection, pepper, id, secret, now_s)
            touch(connection, keys.c.id == id, revision)
            note(connection, by, now_s, "rotate", "key", id, {"overlap_s": overlap_s})
            return Issued(self._show(connection, id), secret)

        return self._database.write(work)

    def delete(self, id: str, by: By) -> None:
        """Delete a key for good, and stop those that hang from it. What it was stays to be seen.

        Raises:
            ObjectNotFound: there is no such key.
            RightsExceeded: the key has more rights than `by` may give.
            Conflict: it is deleted already.
            StorageError: the database is busy or cannot be written.
        """

        def work(connection: Connection) -> None:
            revision, now_s = next_revision(connection), self._clock()
            self._manageable(connection, id, by)
            connection.execute(delete(key_secrets).where(key_secrets.c.key == id))
            connection.execute(update(keys).where(keys.c.id == id).values(deleted=now_s))
            touch(connection, keys.c.id == id, revision)
            note(connection, by, now_s, "delete", "key", id, {})

        self._database.write(work)

    def lost(self) -> int:
        """Count the keys that are of no use because they were made with another pepper.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> int:
            if connection.execute(select(key_secrets.c.key).limit(1)).first() is None:
                return 0  # the pepper is not asked for, which would make one
            fine = select(key_secrets.c.key).where(key_secrets.c.pepper == self._pepper().name)
            wanted = select(func.count(key_secrets.c.key.distinct())).where(key_secrets.c.key.not_in(fine))
            return int(connection.execute(wanted).scalar_one())

        return self._database.read(work)

    def _manageable(self, connection: Connection, id: str, by: By) -> Key:
        key = self._show(connection, id)
        if key.deleted_s is not None:
            raise Conflict("This key is deleted.")
        _within(key.rights, by)
        return key

    def _show(self, connection: Connection, id: str) -> Key:
        _row(connection, id)
        return self._keys(connection, connection.execute(WITH_OWNERS.where(keys.c.id == id)).all())[0]

    def _keys(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Key]:
        mine = key_secrets.c.key.in_([row.id for row in rows])
        found: dict[str, list[Row[Any]]] = {}
        for secret in connection.execute(select(key_secrets).where(mine).order_by(key_secrets.c.made)):
            found.setdefault(secret.key, []).append(secret)
        now_s = self._clock()
        return [key_of(row, found.get(row.id, ()), self._pepper().name, now_s) for row in rows]

    def _keep_secret(self, connection: Connection, pepper: Pepper, id: str, secret: Secret, now_s: float) -> None:
        row = {"hash": pepper.hashed(secret.reveal().encode()), "key": id, "pepper": pepper.name, "made": now_s}
        connection.execute(insert(key_secrets).values(**row))


def _row(connection: Connection, id: str) -> Row[Any]:
    found = connection.execute(select(keys).where(keys.c.id == id)).one_or_none() if is_id(id) else None
    if found is None:
        raise ObjectNotFound("There is no such key.", param="id")
    return found


def _placed(connection: Connection, wanted: NewKey) -> JSON:
    """Say whose a new key is and what it hangs from, once that is found to be there."""
    place: JSON = {"project": wanted.project, "user": wanted.user, "parent": wanted.parent}
    if wanted.parent is not None:
        parent = _row(connection, wanted.parent)
        if parent.deleted is not None:
            raise Conflict("The key that it would hang from is deleted.", param="parent")
        _under(parent, wanted.rights)
        for name in ("project", "user"):
            place[name] = place[name] or getattr(parent, name)
        above = 1
        while parent.parent is not None:
            parent, above = _row(connection, parent.parent), above + 1
        if above >= MOST_GENERATIONS:
            raise InvalidRequest(f"No more than {MOST_GENERATIONS} keys hang from one another.", param="parent")
    for name, table in (("project", projects), ("user", users)):
        found = select(table.c.id).where(table.c.id == place[name])
        if place[name] is not None and (not could_name(place[name]) or connection.execute(found).first() is None):
            raise ObjectNotFound(f"There is no such {name}.", param=name)
    return place


def _fits_its_family(connection: Connection, key: Key, rights: Rights) -> None:
    if key.parent is not None:
        _under(_row(connection, key.parent), rights)
    below = select(keys.c.id, keys.c.rights).where(keys.c.parent == key.id, keys.c.deleted.is_(None))
    for child in connection.execute(below):
        if not kept_rights(json.loads(child.rights)).within(rights):
            raise RightsExceeded(f"The key {child.id} hangs from this one and would have more rights.", param="rights")


def _under(parent: Row[Any], rights: Rights) -> None:
    if not rights.within(kept_rights(json.loads(parent.rights))):
        raise RightsExceeded("A key has no more rights than the one that it hangs from.", param="rights")


def _within(rights: Rights, by: By) -> None:
    """Check rights that somebody wants to give, or to change."""
    if not rights.within(by.grants):
        raise RightsExceeded("The key has more rights than you may give.", param="rights")


def _check_fields(name: str | None, tags: Sequence[str], expires_s: float | None) -> None:
    if name is not None:
        check_name(name)
    entries_of("tags", tags)
    if expires_s is not None and not 0 < expires_s <= _LATEST_S:
        raise InvalidRequest("expires is no time.", param="expires")


def _asked(wanted: NewKey) -> JSON:
    return {
        "name": wanted.name,
        "rights": wanted.rights.document(),
        "project": wanted.project,
        "user": wanted.user,
        "parent": wanted.parent,
        "tags": list(wanted.tags),
        "expires": wanted.expires_s,
    }


def _columns(changes: JSON, *, text: bool = True) -> JSON:
    """Spell changes as columns, or, without `text`, as JSON."""
    spelt: JSON = {}
    for name, value in changes.items():
        plain = value.document() if isinstance(value, Rights) else list(value) if name == "tags" else value
        spelt[name.removesuffix("_s")] = _json(plain) if text and name in ("rights", "tags") else plain
    return spelt


def _json(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=True, sort_keys=True)
