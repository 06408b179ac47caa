"""What a virtual key costs a call, and whether time tells a guesser anything.

    uv run python bench/key_cost.py

First: microseconds of `Authenticator.identify` for a static token, a known virtual key and a known JWT. Then: how long
a wrong key takes that begins as a known one does, that has a known key's public id, and that is random; their medians
must not differ by more than 50 µs. The kinds take turns, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.datastructures import Headers

from gateway.auth import Authenticator
from gateway.auth.issuer import IssuerKeys, read_keys
from gateway.auth.keys import VirtualKeys
from gateway.auth.oidc import Claims, JsonWebTokens
from gateway.auth.tokens import StaticTokens
from gateway.core.keys import Pepper
from gateway.errors import NotAuthenticated
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import NewKey
from gateway.storage.lookup import KeyLookup
from gateway.storage.migrate import upgrade

TOKEN = "sk-static-" + secrets.token_hex(24)
ISSUER, AUDIENCE = "https://id.example/", "gateway"
MOST_APART_US = 50.0


class Given(IssuerKeys):
    """An issuer whose keys need not be fetched."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(ISSUER, None, ("ES256",))
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key()))
        self._keys = read_keys({"keys": [{**public, "kid": "one"}]}, ("ES256",))
        self._fetched_s = time.monotonic()

    def start(self) -> None:
        """Fetch nothing."""


def median_us(kinds: Mapping[str, Callable[[], str]], authenticator: Authenticator, tries: int) -> dict[str, float]:
    """Time each kind of key `tries` times, in turns; the key of each try is made outside of the time."""
    spent: dict[str, list[int]] = {name: [] for name in kinds}
    for _ in range(tries):
        for name, make in kinds.items():
            headers: Any = Headers({"Authorization": f"Bearer {make()}"})
            began = time.perf_counter_ns()
            with contextlib.suppress(NotAuthenticated):
                authenticator.identify(headers)
            spent[name].append(time.perf_counter_ns() - began)
    return {name: statistics.median(each) / 1000 for name, each in spent.items()}


def main() -> int:
    """Print both tables, and return 1 where time tells something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000, help="of each kind (10000)")
    tries = parser.parse_args().tries

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        upgrade(path)
        pepper = Pepper(Secret(secrets.token_hex(32)))
        issued = Directory.of(Database(path), lambda: pepper).keys.create(NewKey("bench"), By("bench"))
        assert issued.secret is not None
        key, private = issued.secret.reveal(), ec.generate_private_key(ec.SECP256R1())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 3600}
        token = jwt.encode(said, private, "ES256", {"kid": "one"})
        keys = VirtualKeys(KeyLookup(Database(path)), lambda: pepper)
        tokens = JsonWebTokens(ISSUER, (AUDIENCE,), ("ES256",), Given(private), Claims())
        authenticator = Authenticator([StaticTokens([Secret(TOKEN)]), keys, tokens])

        known = {"static token": lambda: TOKEN, "virtual key": lambda: key, "JWT": lambda: token}
        costs = median_us(known, authenticator, tries)
        print(f"{'known':<24}{'median µs':>12}{'over static':>14}")
        for name, spent_us in costs.items():
            print(f"{name:<24}{spent_us:>12.2f}{spent_us - costs['static token']:>14.2f}")

        alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

        def chance(length: int) -> str:
            return "".join(secrets.choice(alphabet) for _ in range(length))

        wrong = {
            "all but the last character": lambda: key[:-1] + secrets.choice(alphabet.replace(key[-1], "")),
            "half of a known key": lambda: key[:40] + chance(len(key) - 40),
            "a known public id": lambda: key[:19] + chance(len(key) - 19),
            "random": lambda: "sk-gw-" + chance(12).lower() + "-" + chance(51),
        }
        times = median_us(wrong, authenticator, tries)
        print(f"\n{'wrong':<24}{'median µs':>15}{'over random':>14}")
        for name, spent_us in times.items():
            print(f"{name:<27}{spent_us:>12.2f}{spent_us - times['random']:>14.2f}")
        apart_us = max(times.values()) - min(times.values())
        print(f"\nwrong keys are {apart_us:.2f} µs apart at most; {MOST_APART_US:g} are allowed")
        keys.close()
    return 1 if apart_us > MOST_APART_US else 0


if __name__ == "__main__":
    raise SystemExit(main())
