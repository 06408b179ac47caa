"""The variables of a process, and those of `.env` under them; which of them hold keys, and which LiteLLM reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from gateway.core.providers import PROVIDERS, UNUSED_SECRETS
from gateway.settings.table import SETTINGS

_KEYS = frozenset(name for provider in PROVIDERS.values() for name in provider.keys)
_IDENTITY = frozenset(
    name for row in PROVIDERS.values() for name in (*row.any_of, *row.account, *row.reads) if name not in _KEYS
)
_CLOUDS = ("AWS_", "GOOGLE_", "AZURE_", "VERTEX", "OCI_", "AICORE_")


class Variables:
    """Two layers of variables, trimmed and unquoted: a process's environment, and `.env` under it."""

    def __init__(self, environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> None:
        self._environ = dict(environ)  # as it is now: keys are taken out of a process's own later
        self._dotenv = {name: value or "" for name, value in dotenv.items()}  # a name alone is a blank one

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._environ, *self._dotenv)))

    def get(self, name: str) -> str | None:
        """Return a variable's value, which may be empty, or None where it is not set."""
        value = self.verbatim(name)
        return None if value is None else unquoted(value)

    def verbatim(self, name: str) -> str | None:
        """Return a variable's value as it stands, or None where it is not set."""
        return self._environ.get(name, self._dotenv.get(name))

    def first(self, names: Iterable[str]) -> tuple[str, str] | None:
        """Return the first variable that is set and not blank, with its value."""
        return next(((name, value) for name in names if (value := self.get(name))), None)

    def identity(self) -> dict[str, str]:
        """Return what LiteLLM reads by itself and only the second layer has."""
        return {
            name: unquoted(value)
            for name, value in self._dotenv.items()
            if name not in self._environ and _is_identity(name)
        }


def unquoted(text: str) -> str:
    """Take off the blanks around a text, and one pair of quotes that holds all of it."""
    text = text.strip()
    for quote in "\"'":
        if len(text) >= 2 and text[0] == text[-1] == quote and quote not in text[1:-1]:
            return text[1:-1].strip()
    return text


def withdraw(environ: MutableMapping[str, str], keys: Iterable[str] = ()) -> None:
    """Remove the gateway's and the providers' keys from a process environment.

    Who does so keeps the `Settings`: they cannot be read from that environment again. The clouds' identity
    variables stay, since LiteLLM finds them nowhere else.

    Args:
        environ: the environment, with `Settings.identity` in it.
        keys: further variables that hold keys, such as a routes file names; one that LiteLLM looks for stays.
    """
    others = (name for name in keys if name not in _IDENTITY)
    for name in (*_KEYS, *UNUSED_SECRETS, *(row.env for row in SETTINGS if row.secret), *others):
        environ.pop(name, None)


def _is_identity(name: str) -> bool:
    """Whether LiteLLM looks for a variable in the process environment, and nowhere else."""
    return name in _IDENTITY or (name.startswith(_CLOUDS) and name not in _KEYS)
