"""Virtual keys, as they come with requests.

Each worker remembers the keys that it has met, so that a call costs a look into a dictionary. Once a second it asks the
database whether any key has changed, and forgets those that have. While the database is away, what is remembered goes
on for a while; then nobody can say any more whether a key is good, which is a 503 and no 401.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.calls import Caller
from gateway.core.keys import Key, Pepper, has_shape
from gateway.errors import StoreUnavailable
from gateway.storage.database import StorageError
from gateway.storage.lookup import USED_EVERY_S, Found, KeyLookup

log = logging.getLogger(__name__)

#: A change is felt within this and the time of one query: well below the 5 s that are promised.
POLL_S = 1.0
#: Longer than a database takes to start again or to fail over; short enough for what was revoked meanwhile.
GRACE_S = 60.0
#: Keys that this gateway made, be they gone, are all that is ever looked up, so nobody meets this bound by guessing.
LOOKUPS_PER_S = 200.0

_MOST_KNOWN = 20_000  # about 1 kB each
_MOST_UNKNOWN = 10_000
_UNKNOWN_S = 30.0
_LOOKUP_S = 5.0  # who waits for another's lookup of the same key
_MOST_TRIES = 5


@dataclass(frozen=True)
class _Known:
    caller: Caller
    id: str
    until_s: float | None


class VirtualKeys:
    """Knows callers by their virtual keys (auth.Verifier).

    Args:
        lookup: where keys are looked up.
        pepper: returns what they are hashed with; asked when the first key comes. It may raise `StorageError`.
        poll_s: how often to look for changes.
        grace_s: for how long keys that are known go on while the database is away.
    """

    def __init__(
        self,
        lookup: KeyLookup,
        pepper: Callable[[], Pepper],
        *,
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._lookup = lookup
        self._pepper = pepper
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._known: dict[bytes, _Known] = {}  # by SHA-256 of the whole key
        self._unknown: dict[bytes, float] = {}  # until when, on the monotonic clock
        self._used: dict[str, float] = {}
        self._pending: dict[bytes, threading.Event] = {}
        self._allowance = _Allowance(LOOKUPS_PER_S)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None
        # all that is remembered was so at this revision or later, and is as new as this moment
        self._revision = 0
        self._confirmed_s = 0.0
        self._noted_s = time.monotonic()
        self._away = False

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        self._lookup.start()

    def close(self) -> None:
        """Stop looking for changes, and write down what was used last."""
        self._closed.set()
        self._wake.set()
        poller = self._poller
        if poller is not None:
            poller.join(_LOOKUP_S)
        self._note_uses()
        self._lookup.close()

    def verify(self, credential: bytes) -> Caller | None:
        """Return whose key it is.

        Raises:
            StoreUnavailable: the key may be good, and the database does not say so.
        """
        if not has_shape(credential):
            return None
        digest = hashlib.sha256(credential).digest()
        known = self._known.get(digest)
        if known is None:
            # the check comes first: what this gateway did not make costs the same whatever it looks like
            if not self._made(credential) or self._unknown.get(digest, 0.0) > time.monotonic():
                return None
            known = self._learn(digest, credential)
            return known.caller if known is not None else None
        now_s = time.time()
        if known.until_s is not None and known.until_s <= now_s:
            return None
        if time.monotonic() - self._confirmed_s > self._grace_s:
            self._keep_polling()
            raise _unavailable()
        self._used[known.id] = now_s
        return known.caller

    def verify_anew(self, credential: bytes) -> Caller | None:
        """Return whose key it is by what the database says now (auth.Remembering), and remember that.

        Raises:
            StoreUnavailable: the key may be good, and the database does not say so.
        """
        if not has_shape(credential) or not self._made(credential):
            return None
        known = self._asked(hashlib.sha256(credential).digest(), credential, bounded=False)
        return known.caller if known is not None else None

    def _made(self, credential: bytes) -> bool:
        try:
            return self._pepper().made(credential)
        except StorageError as error:
            log.warning("no virtual key can be checked", extra={"fields": {"why": str(error)}})
            raise _unavailable() from error

    def _learn(self, digest: bytes, credential: bytes) -> _Known | None:
        """Look a key up; of many requests that bring it at once, one does."""
        with self._lock:
            others = self._pending.get(digest)
            if others is None:
                self._pending[digest] = threading.Event()
        if others is not None:
            others.wait(_LOOKUP_S)
            known = self._known.get(digest)
            if known is None and digest not in self._unknown:
                raise _unavailable()
            return known
        try:
            return self._asked(digest, credential)
        finally:
            with self._lock:
                self._pending.pop(digest).set()

    def _asked(self, digest: bytes, credential: bytes, *, bounded: bool = True) -> _Known | None:
        try:
            return self._look_up(digest, credential, bounded=bounded)
        except StorageError as error:
            log.warning("a virtual key could not be looked up", extra={"fields": {"why": str(error)}})
            raise _unavailable() from error

    def _look_up(self, digest: bytes, credential: bytes, *, bounded: bool) -> _Known | None:
        hashed = self._pepper().hashed(credential)
        for _ in range(_MOST_TRIES):
            if bounded and not self._allowance.take(time.monotonic()):
                raise _unavailable()
            began_s, now_s = time.monotonic(), time.time()
            found = self._lookup.find(hashed, now_s)
            with self._lock:
                if not self._known and not self._unknown:  # nobody has looked for changes since
                    self._revision, self._confirmed_s = found.revision, began_s
                if found.revision >= self._revision:  # else a change was seen that it was read before
                    known = self._remember(digest, found, now_s)
                    self._keep_polling()
                    return known
        raise _unavailable()

    def _remember(self, digest: bytes, found: Found, now_s: float) -> _Known | None:
        if found.key is None:
            self._known.pop(digest, None)
            _make_room(self._unknown, _MOST_UNKNOWN)
            self._unknown[digest] = time.monotonic() + _UNKNOWN_S
            return None
        known = _Known(caller_of(found.key, found.until_s), found.key.id, found.until_s)
        _make_room(self._known, _MOST_KNOWN)
        self._known[digest] = known
        self._used[known.id] = now_s
        return known

    def _keep_polling(self) -> None:
        """Have a thread look for changes; made when it is first needed, so that none is there before the fork."""
        if self._closed.is_set():
            return
        if self._poller is None or not self._poller.is_alive():
            self._poller = threading.Thread(target=self._poll_on, name="key-changes", daemon=True)
            self._poller.start()
        self._wake.set()

    def _poll_on(self) -> None:
        while not self._closed.wait(self._poll_s):
            self._wake.clear()  # first: what is learnt from here on sets it again
            if not self._known and not self._unknown:
                self._wake.wait()
                continue
            self.poll()
            if time.monotonic() - self._noted_s >= USED_EVERY_S:
                self._note_uses()

    def poll(self) -> None:
        """Look for changes once, and forget the keys that have changed."""
        began_s = time.monotonic()
        try:
            changed = self._lookup.changed(self._revision)
        except StorageError as error:
            if not self._away:
                log.warning("changes of virtual keys cannot be seen", extra={"fields": {"why": str(error)}})
            self._away = True
            return
        if self._away:
            log.info("changes of virtual keys can be seen again")
        self._away = False
        with self._lock:
            if changed.revision != self._revision:
                self._unknown.clear()
                kept = {} if changed.ids is None else self._known
                # a new dictionary: requests look into the old one meanwhile, without the lock
                self._known = {
                    digest: known for digest, known in kept.items() if known.id not in (changed.ids or frozenset())
                }
            self._revision, self._confirmed_s = changed.revision, began_s

    def _note_uses(self) -> None:
        noting, self._used = self._used, {}
        used = dict(noting)  # a request that has looked before may write into it still
        self._noted_s = time.monotonic()
        try:
            self._lookup.used(used)
        except StorageError as error:
            log.warning("the last use of keys was not noted", extra={"fields": {"why": str(error)}})
            for id, at_s in used.items():
                self._used.setdefault(id, at_s)


class _Allowance:
    """So many a second, and twice as many after a pause."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = 2 * rate
        self._at_s = 0.0

    def take(self, now_s: float) -> bool:
        """Take one, if there is one; `now_s` is on a clock that does not go back."""
        self._left = min(2 * self._rate, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


def caller_of(key: Key, until_s: float | None) -> Caller:
    """Who calls with a key, which is good until then.

    What a project's keys store, all of them find; else a user's, else the key alone.
    """
    name = f"key_{key.id}"
    return Caller(
        id=name,
        tenant=key.project or key.user or name,
        kind="key",
        rights=key.rights,
        key_id=key.id,
        key_name=key.name,
        project=key.project_name,
        user=key.user_name,
        tags=tuple(key.tags),
        expires_s=until_s,
        project_id=key.project,
        user_id=key.user,
    )


def _make_room(cache: dict[bytes, _Known] | dict[bytes, float], most: int) -> None:
    while len(cache) >= most:
        cache.pop(next(iter(cache)))


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("Keys cannot be looked up at the moment; send the request again.")
