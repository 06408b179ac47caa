"""The revision of all that decides about keys, and that of limits and budgets.

Each grows with each change, and every worker looks at it. Its row is also what changes wait for one another at: each
begins by taking it. So of two revisions the greater one is committed later, on every database, and what a transaction
has read of keys, or of rules, cannot change before its end.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from gateway.storage.tables import keys, revisions

#: How many keys may hang from one another, the first one included.
MOST_GENERATIONS = 4

#: Of what there are revisions; the migrations make their rows.
KEYS = "keys"
RULES = "rules"

_MINE = revisions.c.name == bindparam("which")
_NEXT = update(revisions).where(_MINE).values(number=revisions.c.number + 1)
_NOW = select(revisions.c.number).where(_MINE)


def next_revision(connection: Connection, of: str = KEYS) -> int:
    """Begin a change, within `Database.write`, and return the revision that it makes; `of` is `KEYS` or `RULES`."""
    connection.execute(_NEXT, {"which": of})
    return revision(connection, of)


def revision(connection: Connection, of: str = KEYS) -> int:
    """Return the revision of what a transaction sees; `of` is `KEYS` or `RULES`."""
    return int(connection.execute(_NOW, {"which": of}).scalar_one())


def touch(connection: Connection, which: ColumnElement[bool], revision: int) -> None:
    """Mark keys as changed, and all that hang from them.

    Args:
        connection: of the transaction that has this revision.
        which: a condition on `keys`.
        revision: what `next_revision` returned.
    """
    connection.execute(update(keys).where(which).values(revision=revision))
    # the rows above are asked for by a name of their own: no statement may read what it writes on every database
    above = keys.alias()
    parents = select(above.c.id).where(above.c.revision == revision)
    for _ in range(MOST_GENERATIONS - 1):
        connection.execute(update(keys).where(keys.c.parent.in_(parents)).values(revision=revision))
