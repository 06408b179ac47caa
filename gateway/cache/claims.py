"""The answers that this worker has claimed to make, so that the other workers wait for them."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Generator, Sequence

from gateway.cache.stores import Stores
from gateway.core import cachekey
from gateway.core.calls import Call
from gateway.errors import NameReused
from gateway.storage.answers import Claim, KeptAnswer
from gateway.storage.faults import StorageError
from gateway.upstream.failures import pause

log = logging.getLogger(__name__)

#: A claim that is not renewed ends after this: so long nobody makes the answer of a worker that was killed. It is
#: above what a busy machine, or a store that is left alone for a while, may keep a renewal waiting.
LEASE_S = 10.0
_RENEWALS = 3
#: What failed is tried again after so long.
_AGAIN_S = 0.5
#: How often another worker's answer is looked for: after a tenth of what it was waited for already, within these.
_SOONEST_S, _LATEST_S = 0.05, 0.5
#: A named request waits so long for the store before it goes on without, in tries this far apart: its caller is
#: promised that it is paid once, and a store that was not used yet has to be connected to.
_NAMED_PATIENCE_S, _NAMED_PAUSE_S = 1.0, 0.02


class Claims:
    """Takes claims in a shared store, renews them while their answers are made, and gives them up.

    A thread of its own does what no call waits for; it begins with the first claim.

    Args:
        stores: where answers are kept.
        lease_s: how long a claim outlives this worker.
    """

    def __init__(self, stores: Stores, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self._stores = stores
        self._lock = threading.Lock()
        self._held: set[Claim] = set()
        #: Given up, and until when the store has to be told.
        self._given_up: dict[Claim, float] = {}
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Tell the store of what was given up, and stop; what is held ends with its lease. Safe to call again."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)

    @property
    def left_alone(self) -> bool:
        """Whether the store is not asked for a while."""
        return self._stores.left_alone

    def wanted(self, tenant: str, digest: str, fingerprint: str) -> Claim:
        """Make a claim that nobody else can make: drawn here, since what is made before the fork all workers have."""
        return Claim(tenant, digest, uuid.uuid4().hex, fingerprint)

    def take(self, wanted: Claim, digests: Sequence[str], patience_s: float = 0.0) -> KeptAnswer | Claim | None:
        """Find an answer, or claim the making of it, which is then renewed until `kept` or `give_up`.

        Args:
            wanted: of `wanted`, and not asked for before: a claim that came too late is given up.
            digests: of the answers that will do.
            patience_s: as `Stores.claim` has it.

        Returns:
            As `storage.answers.Answers.claim`; None where the store does not answer.
        """
        found = self._stores.claim(wanted, digests, self.lease_s, patience_s)
        if found == wanted:
            with self._lock:
                self._held.add(wanted)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="cache-claims", daemon=True)
                    self._thread.start()
        return found

    def kept(self, claim: Claim) -> None:
        """The answer goes to the store, and the claim with it."""
        with self._lock:
            self._held.discard(claim)

    def give_up(self, claim: Claim) -> None:
        """There is no answer; who waits may try. Nothing happens where it is not held; safe to call again."""
        with self._lock:
            if claim not in self._held:
                return
            self._held.discard(claim)
            self._given_up[claim] = time.monotonic() + self.lease_s
        self._wake.set()

    def _run(self) -> None:
        renew_s = time.monotonic() + self.lease_s / _RENEWALS
        while True:
            closed = self._closed.is_set()
            self._wake.clear()
            told = self._tell()
            if closed:
                return
            if time.monotonic() >= renew_s:
                renewed = self._renew()
                renew_s = time.monotonic() + (self.lease_s / _RENEWALS if renewed else _AGAIN_S)
            left_s = max(0.0, renew_s - time.monotonic())
            if not self._closed.is_set():
                self._wake.wait(left_s if told else min(left_s, _AGAIN_S))

    def _tell(self) -> bool:
        """Tell the store what is given up; False: there is something left to tell."""
        with self._lock:
            given_up = list(self._given_up.items())
        for claim, until_s in given_up:
            try:
                self._stores.release(claim)
            except StorageError as error:
                if time.monotonic() < until_s:  # afterwards it has ended by itself
                    log.debug("a claim is given up later", extra={"fields": {"why": str(error)}})
                    return False
            with self._lock:
                self._given_up.pop(claim, None)
        return True

    def _renew(self) -> bool:
        with self._lock:
            held = list(self._held)
        if not held:
            return True
        try:
            self._stores.renew(held, self.lease_s)
        except StorageError as error:
            fields = {"why": str(error), "claims": len(held)}
            log.warning(
                "claims to answers cannot be renewed: other workers may make them too", extra={"fields": fields}
            )
            return False
        return True


class Turn:
    """One call's turn to make an answer: now, or after the workers that make it already.

    Args:
        claims: of this worker.
        call: whose turn it is.
        digests: of the answers that will do; it would make the first.
        fingerprint: of the request, where its name alone is its key.
        silence_s: how long nothing is told.

    Attributes:
        waits: another worker makes the answer, or did.
        waited_s: how long that was waited for.
    """

    def __init__(self, claims: Claims, call: Call, digests: Sequence[str], fingerprint: str, silence_s: float) -> None:
        self._claims = claims
        self._call = call
        self._digests = digests
        self._fingerprint = fingerprint
        self._silence_s = silence_s
        self.waits = False
        self.waited_s = 0.0

    def come(self) -> Generator[None, None, KeptAnswer | Claim | None]:
        """Wait for it; gives None for each `silence_s` of that.

        Returns:
            An answer that another made, the claim to make it, or None where it is made without: the store does not
            answer, or who made it has failed, so that each asks for itself.

        Raises:
            NameReused: who makes it makes that of another request.
            GatewayError: the call is stopped meanwhile.
        """
        tenant, named = self._call.caller.tenant, self._call.name is not None
        before: Claim | None = None
        began_s = seen_s = told_s = now_s = time.monotonic()
        patient_until_s = began_s + (_NAMED_PATIENCE_S if named else 0.0)
        while True:
            wanted = self._claims.wanted(tenant, self._digests[0], self._fingerprint)
            found = self._claims.take(wanted, self._digests, min(patient_until_s, self._call.deadline_s) - now_s)
            now_s = time.monotonic()
            if isinstance(found, KeptAnswer) or found == wanted:
                return found
            if found is None:
                until_s = patient_until_s if before is None else seen_s + self._claims.lease_s
                if now_s >= until_s or (before is None and self._claims.left_alone):
                    return None
            elif found.fingerprint != self._fingerprint:
                raise name_reused()
            elif not named and before is not None and before != found:
                return None
            else:
                before, seen_s, self.waits = found, now_s, True
            lately_s = (now_s - began_s) / 10
            self._rest(min(_LATEST_S, max(_SOONEST_S, lately_s)) if self.waits else _NAMED_PAUSE_S)
            now_s = time.monotonic()
            if now_s - told_s >= self._silence_s:
                told_s = now_s
                yield None

    def _rest(self, seconds: float) -> None:
        began_s = time.time()
        try:
            pause(self._call.cancellation, seconds)
        finally:
            self.waited_s += time.time() - began_s


def name_reused() -> NameReused:
    """The error of a request whose name is another's."""
    return NameReused("Another request had this Idempotency-Key within 24 hours.", param=cachekey.NAME_HEADER)
