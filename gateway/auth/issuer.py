"""The public keys of an issuer of JWTs: fetched in the background, and kept.

No request fetches anything. A token that names a key which is not there has the keys fetched again, once in a while:
so a key that the issuer has just made is known within seconds, and made-up names cost nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from gateway.auth.fetching import configuration, fetched, is_safe
from gateway.errors import StoreUnavailable

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: The kind of key of each algorithm, by how its name begins (RFC 7518, section 6.1; RFC 8037, section 2).
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
#: And the curve of those that have one (RFC 7518, section 3.4; RFC 8037, section 3.1).
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}

_EVERY_S = 600.0
_AGAIN_S = 10.0  # at the soonest, for a key that is not known
_RETRY_S = 15.0
_WAIT_S = 2.0  # for the first keys, and for a key that is being fetched
#: So long do keys go on that cannot be fetched again. Who can keep the gateway from its issuer is not to keep a key
#: alive for ever that was revoked.
_STALE_S = 86_400.0
_MOST_KEYS = 100


class IssuerKeys:
    """The keys of one issuer (auth.Living).

    Args:
        issuer: as its tokens name it; its address.
        url: of its keys (RFC 7517, section 5); None to ask the issuer for it (OpenID Connect Discovery 1.0, section 4).
        algorithms: those that are accepted, of `settings.ALGORITHMS`.
    """

    def __init__(self, issuer: str, url: str | None, algorithms: Sequence[str]) -> None:
        self._issuer = issuer
        self._url = url
        self._algorithms = tuple(algorithms)
        self._keys: dict[tuple[str | None, str], PyJWK] = {}
        self._document: object = None
        self._fetched_s: float | None = None
        self._asked_s = -_AGAIN_S
        self._tried = 0
        self._failing = False
        self._changed = threading.Condition()
        self._closed = False
        self._wanted = False
        self._thread: threading.Thread | None = None
        #: Grows whenever the keys become others.
        self.generation = 0

    def start(self) -> None:
        """Begin to fetch, in a thread of its own; safe to call again."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._fetch_on, name="issuer-keys", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop; safe to call again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(1.0)  # a fetch that is under way ends with the process

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the key that a token names, for one algorithm.

        Args:
            kid: the name of the key; None where the token has none, which will do where there is only one that fits.
            algorithm: as the token has it.

        Raises:
            StoreUnavailable: no keys could be fetched for too long, or ever.
        """
        self.start()
        key = self._known(kid, algorithm)
        if key is None and algorithm in self._algorithms:
            self._ask_again()
            key = self._known(kid, algorithm)
        now_s = time.monotonic()
        if self._fetched_s is None or now_s - self._fetched_s > _STALE_S:
            raise StoreUnavailable("The issuer of JWTs cannot be asked for its keys; send the request again.")
        return key

    def _known(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _ask_again(self) -> None:
        """Have the keys fetched, unless that was so lately, and wait for a fetch that is under way."""
        with self._changed:
            now_s = time.monotonic()
            if self._fetched_s is not None and not self._wanted:
                if now_s - self._asked_s < _AGAIN_S:
                    return
                self._wanted = True
                self._changed.notify_all()
            elif self._fetched_s is None and self._tried:
                return  # it fails, and is tried again without anybody who waits
            tried = self._tried
            self._changed.wait_for(lambda: self._tried != tried or self._closed, _WAIT_S)

    def _fetch_on(self) -> None:
        while True:
            self._asked_s = time.monotonic()
            pause_s = _EVERY_S if self._fetch() else _RETRY_S
            with self._changed:
                self._tried += 1
                self._wanted = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._wanted, pause_s)
                if self._closed:
                    return

    def _fetch(self) -> bool:
        try:
            if (url := self._url) is None:
                url = self._discovered()
            document = fetched(url)
            keys = read_keys(document, self._algorithms)
        except (HTTPException, OSError, ValueError) as error:
            if not self._failing:
                log.warning("the keys of %s cannot be fetched: %s", self._issuer, _said_of(error))
            self._failing = True
            return False
        if self._failing:
            log.info("the keys of %s can be fetched again", self._issuer)
        self._failing = False
        if document != self._document:
            self._keys, self._document = keys, document
            self.generation += 1
        self._fetched_s = time.monotonic()
        return True

    def _discovered(self) -> str:
        document = configuration(self._issuer)
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_safe(url):
            raise ValueError("its configuration names no https address of its keys")
        return url


def read_keys(document: JSON, algorithms: Sequence[str]) -> dict[tuple[str | None, str], PyJWK]:
    """Read a set of keys (RFC 7517, section 5).

    Args:
        document: the set.
        algorithms: those that are accepted; a key that names one is for that alone.

    Returns:
        Public keys for signatures, by their name and algorithm. Others are left out, as the RFC wants.

    Raises:
        ValueError: it is no set of keys, or none of them is of use.
    """
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ValueError("they are no set of keys")
    found: dict[tuple[str | None, str], PyJWK] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        kid = one.get("kid")
        if kid is not None and not isinstance(kid, str):
            continue
        named = one.get("alg")
        for algorithm in algorithms:
            if one.get("kty") != _KINDS[algorithm[:2]] or named not in (None, algorithm):
                continue
            if algorithm in _CURVES and one.get("crv") != _CURVES[algorithm]:
                continue
            try:
                found.setdefault((kid, algorithm), PyJWK(one, algorithm))
            except PyJWTError:
                log.debug("a key of the issuer cannot be used for %s", algorithm)
    if not found:
        raise ValueError(f"none of them is of use for {', '.join(algorithms)}")
    return found


def _said_of(error: Exception) -> str:
    return str(error) if type(error) is ValueError else type(error).__name__
