"""How virtual keys are read from their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, select

from gateway.core.keys import Key
from gateway.core.rights import kept_rights
from gateway.storage.tables import keys, projects, users

#: Each key, with its project and user where it has them.
WITH_OWNERS = select(
    keys,
    projects.c.name.label("project_name"),
    projects.c.disabled.label("project_disabled"),
    users.c.name.label("user_name"),
    users.c.disabled.label("user_disabled"),
).select_from(keys.outerjoin(projects, keys.c.project == projects.c.id).outerjoin(users, keys.c.user == users.c.id))


def key_of(row: Row[Any], its_secrets: Iterable[Row[Any]], pepper: str, now_s: float) -> Key:
    """Read a key from a row of `WITH_OWNERS` and the rows of its secrets; `pepper` is the name of the one at hand."""
    known = list(its_secrets)
    good = [secret.ends for secret in known if secret.pepper == pepper and (secret.ends is None or secret.ends > now_s)]
    return Key(
        id=row.id,
        name=row.name,
        rights=kept_rights(json.loads(row.rights)),
        project=row.project,
        project_name=row.project_name,
        user=row.user,
        user_name=row.user_name,
        parent=row.parent,
        tags=tuple(json.loads(row.tags)),
        made_s=row.made,
        made_by=row.made_by,
        expires_s=row.expires,
        disabled=row.disabled,
        used_s=row.used,
        deleted_s=row.deleted,
        ends_s=tuple(good),
        lost=bool(known) and not any(secret.pepper == pepper for secret in known),
    )
