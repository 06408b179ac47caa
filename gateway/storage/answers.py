"""Where the cache keeps answers: what every store of them does, and the one in memory."""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.storage.faults import StorageFailed

#: For how long it is told that something was cleared: longer than any copy is kept.
CLEARING_KEPT_S = 60.0
#: What an entry takes beside its content, about: keys, times, the row or object around them.
ENTRY_BYTES = 400
#: Less than this does not get smaller.
_COMPRESSED_FROM_BYTES = 512
_PLAIN, _DEFLATED = b"0", b"1"


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that is kept.

    Attributes:
        tenant: whose it is.
        digest: its key (`core/cachekey.py`), in which the tenant is too.
        made_s, ends_s: when it was kept and until when it is, seconds since the epoch.
        content: what only the cache reads.
    """

    tenant: str
    digest: str
    made_s: float
    ends_s: float
    content: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return len(self.content) + ENTRY_BYTES


@dataclass(frozen=True)
class Claim:
    """That an answer is being made, so that whoever wants the same waits for it; it ends by itself, as a lease.

    Attributes:
        tenant: whose answer it will be.
        digest: its key.
        owner: who makes it, by a name that nobody else has; ASCII without blanks.
        fingerprint: tells another request with that key apart, as ASCII without blanks; empty where there is none.
    """

    tenant: str
    digest: str
    owner: str
    fingerprint: str = ""

    def packed(self) -> bytes:
        """What a store keeps of it besides the key; no other claim has the same."""
        return f"{self.owner} {self.fingerprint}".encode()

    def held_by(self, stored: bytes) -> Claim:
        """Make the claim with this one's key of what is stored there.

        Raises:
            StorageFailed: it is no claim of ours.
        """
        owner, blank, fingerprint = stored.decode("ascii", "replace").partition(" ")
        if not blank:
            raise StorageFailed("a claim to an answer is damaged")
        return Claim(self.tenant, self.digest, owner, fingerprint)


@dataclass(frozen=True)
class Holdings:
    """How many answers a store keeps, and the size of their contents there, compressed where they are."""

    answers: int
    size_bytes: int


class Answers(Protocol):
    """A store of answers. What it loses is only a miss, so it may lose anything, and never gives a wrong one.

    Every verb but `start` and `close` raises `storage.faults.StorageError` where the store cannot be used.
    """

    def start(self) -> None:
        """Make ready in this process, after the fork; safe to call again."""
        ...

    def close(self) -> None:
        """Let go of what is held; safe to call again."""
        ...

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """Return the first of these that the tenant has, past its time never; None where it has none."""
        ...

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        """Keep an answer, in the place of one with the same key, and give up the claim to make it, in one step."""
        ...

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        """Find an answer, or else claim the making of it, in one step: of all who ask at once one is told to make it.

        Args:
            wanted: the claim.
            digests: of the answers that will do.
            lease_s: the claim ends after so long, unless it is renewed.

        Returns:
            The first of these answers that the tenant has; else who makes it: `wanted`, or the claim of another that
            was there before.
        """
        ...

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        """Let the leases of claims run anew from now, as far as they are still held."""
        ...

    def release(self, claim: Claim) -> None:
        """Give up a claim; nothing happens where it is not held any more."""
        ...

    def clear(self, tenant: str | None = None) -> int:
        """Forget all answers, or all of a tenant, and return how many there were."""
        ...

    def clearing(self) -> str:
        """Return what is another after each `clear`, and after a minute without one, so that copies are let go of."""
        ...

    def holdings(self, tenant: str | None = None) -> Holdings:
        """Say what is kept of all, or of a tenant; what is past its time may still count."""
        ...


class MemoryAnswers:
    """`Answers` of one process; those that were asked for longest ago make room.

    Args:
        room_bytes: for all of them.
        clock: seconds since the epoch.
    """

    def __init__(self, room_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._room_bytes = room_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, KeptAnswer] = OrderedDict()
        self._claims: dict[str, tuple[Claim, float]] = {}
        self._clearings = 0
        self._size_bytes = 0

    def start(self) -> None:
        """Nothing has to be."""

    def close(self) -> None:
        """Nothing has to be."""

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """See `Answers.find`."""
        with self._lock:
            return self._found(tenant, digests)

    def _found(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        for digest in digests:
            if (found := self._kept.get(digest)) is None or found.tenant != tenant:
                continue
            if found.ends_s <= self._clock():
                self._drop(digest)
                continue
            self._kept.move_to_end(digest)
            return found
        return None

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        """See `Answers.keep`; one that is larger than the room is not kept."""
        with self._lock:
            if claim is not None:
                self._give_up(claim)
            self._drop(answer.digest)
            if answer.size_bytes > self._room_bytes:
                return
            self._kept[answer.digest] = answer
            self._size_bytes += answer.size_bytes
            while self._size_bytes > self._room_bytes:
                self._drop(next(iter(self._kept)))

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        """See `Answers.claim`."""
        with self._lock:
            if (found := self._found(wanted.tenant, digests)) is not None:
                return found
            held = self._claims.get(wanted.digest)
            if held is not None and held[1] > self._clock() and held[0] != wanted:
                return held[0]
            self._claims[wanted.digest] = wanted, self._clock() + lease_s
            return wanted

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        """See `Answers.renew`."""
        with self._lock:
            for claim in claims:
                held = self._claims.get(claim.digest)
                if held is not None and held[0] == claim:
                    self._claims[claim.digest] = claim, self._clock() + lease_s

    def release(self, claim: Claim) -> None:
        """See `Answers.release`."""
        with self._lock:
            self._give_up(claim)

    def _give_up(self, claim: Claim) -> None:
        held = self._claims.get(claim.digest)
        if held is not None and held[0] == claim:
            del self._claims[claim.digest]

    def clear(self, tenant: str | None = None) -> int:
        """See `Answers.clear`."""
        with self._lock:
            gone = [digest for digest, one in self._kept.items() if tenant is None or one.tenant == tenant]
            for digest in gone:
                self._drop(digest)
            self._clearings += 1
        return len(gone)

    def clearing(self) -> str:
        """See `Answers.clearing`; what is kept here needs none."""
        return str(self._clearings)

    def holdings(self, tenant: str | None = None) -> Holdings:
        """See `Answers.holdings`."""
        with self._lock:
            sizes = [len(one.content) for one in self._kept.values() if tenant is None or one.tenant == tenant]
        return Holdings(len(sizes), sum(sizes))

    def _drop(self, digest: str) -> None:
        if (gone := self._kept.pop(digest, None)) is not None:
            self._size_bytes -= gone.size_bytes


def compressed(content: bytes) -> bytes:
    """Make a content smaller for a store outside of the process (RFC 1950, at the fastest level)."""
    if len(content) < _COMPRESSED_FROM_BYTES:
        return _PLAIN + content
    return _DEFLATED + zlib.compress(content, 1)


def uncompressed(stored: bytes, most_bytes: int) -> bytes:
    """Undo `compressed`.

    Args:
        stored: as the store gave it.
        most_bytes: more than that it cannot have been.

    Raises:
        StorageFailed: it is no content of ours.
    """
    if stored[:1] == _PLAIN:
        return stored[1:]
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(stored[1:], most_bytes) if stored[:1] == _DEFLATED else b""
    except zlib.error:
        content = b""
    if not content or not reader.eof:
        raise StorageFailed("a kept answer is damaged")
    return content
