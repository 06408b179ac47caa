"""What was probably meant by a model name, or a path, that nobody answers to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from gateway.core.endpoints import ENDPOINTS
from gateway.core.spelling import nearest

#: Names of so few letters are all nearly the same.
_ALIKE = 3
#: Longer ones cost too much to compare.
_LONGEST = 64

#: The dash that is left out most often: gpt4o for gpt-4o.
_NO_DASH = re.compile(r"^(gpt|claude|gemini)(?=\d)", re.ASCII)

#: The operations that a path can end with, without their ids.
_SERVED = frozenset(endpoint.path for endpoint in ENDPOINTS if "{" not in endpoint.path)


def meant(name: str, names: Collection[str], providers: Iterable[str], is_known: Callable[[str], bool]) -> str | None:
    """Return the model that was probably meant, or None.

    Args:
        name: as the caller wrote it.
        names: those that are answered as they stand, as far as this caller may call them.
        providers: who may stand before the slash.
        is_known: whether a name without a provider is a model's.
    """
    if not _ALIKE < len(name) <= _LONGEST:
        return None
    if (found := next((one for one in names if one.endswith(f"/{name}")), None) or nearest(name, names)) is not None:
        return found
    provider, slash, model = name.partition("/")
    if slash:
        near = nearest(provider.lower(), providers) if len(provider) > _ALIKE and model else None
        return f"{near}/{model}" if near is not None and near != provider else None
    candidates = (name.lower(), _NO_DASH.sub(r"\1-", name.lower()))
    return next((one for one in candidates if one != name and is_known(one)), None)


def served_instead(path: str) -> str | None:
    """Return the operation's path that a longer one ends with, as a wrong base URL makes it; None where there is none.

    Args:
        path: that nobody serves, such as `/v1/v1/messages`.
    """
    segments = [segment for segment in path.split("/") if segment]
    for start in range(len(segments)):
        rest = "/".join(segments[start:])
        for candidate in (f"/{rest}", f"/v1/{rest}"):
            if candidate in _SERVED and candidate != path:
                return candidate
    return None
