"""Which rules a call is held to, found quickly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.core.calls import Caller
from gateway.core.rules import Rule

_MOST_REMEMBERED = 10_000
_LONGEST_REMEMBERED = 1_024  # characters of names: a caller may invent them

#: What rules are found by: the first of these that is set is the narrowest.
_INDEXED = ("key", "caller", "user", "project")


class RuleSet:
    """Rules, and quickly which of them a call is held to.

    Args:
        rules: in the order in which they are returned.
        names: ids of accounts by kind and name, as `("project", "shop")`: a caller that is known by the name alone (a
            JWT's) is held to what is said of the id.
    """

    def __init__(self, rules: Iterable[Rule] = (), names: Mapping[tuple[str, str], str] | None = None) -> None:
        self.rules = tuple(rules)
        self._names = dict(names or {})
        self._indexed: dict[tuple[str, str], list[int]] = {}
        self._others: list[int] = []
        self._remembered: dict[tuple[object, ...], tuple[Rule, ...]] = {}
        for number, rule in enumerate(self.rules):
            where = next(((name, value) for name in _INDEXED if (value := getattr(rule.match, name)) is not None), None)
            (self._others if where is None else self._indexed.setdefault(where, [])).append(number)

    def of(self, caller: Caller, models: Sequence[str]) -> tuple[Rule, ...]:
        """Return the rules that a call is held to.

        Args:
            caller: whose call.
            models: the name that was asked for, and those of the deployments that are planned.
        """
        if not self.rules:
            return ()
        names = frozenset(models)  # of a name's deployments another one is the first in each call
        asked = (caller.id, caller.project_id, caller.project, caller.user_id, caller.user, names)
        found = self._remembered.get(asked)
        if found is None:
            known = self._placed(caller)
            found = tuple(rule for rule in self._near(known) if rule.match.takes(known, models))
            if sum(map(len, names)) <= _LONGEST_REMEMBERED:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered = {}  # a new one: another thread may be looking into the old one
                self._remembered[asked] = found
        return found

    def about(self, caller: Caller) -> tuple[Rule, ...]:
        """Return the rules that a caller is held to for some model."""
        known = self._placed(caller)
        return tuple(rule for rule in self._near(known) if replace(rule.match, model=None).takes(known, ()))

    def _placed(self, caller: Caller) -> Caller:
        """The caller with the ids of its project and user, where only their names came with it."""
        project_id = caller.project_id or self._names.get(("project", caller.project or ""))
        user_id = caller.user_id or self._names.get(("user", caller.user or ""))
        if (project_id, user_id) == (caller.project_id, caller.user_id):
            return caller
        return replace(caller, project_id=project_id, user_id=user_id)

    def _near(self, caller: Caller) -> list[Rule]:
        """The rules that may be about a caller: those that name it, and those that name nobody."""
        named = {
            ("key", caller.key_id),
            ("caller", caller.id),
            *(("user", one) for one in (caller.user_id, caller.user)),
            *(("project", one) for one in (caller.project_id, caller.project)),
        }
        numbers = [*self._others]
        for name, value in named:
            if value is not None:
                numbers += self._indexed.get((name, value), ())
        return [self.rules[number] for number in sorted(numbers)]
