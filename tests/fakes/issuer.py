"""An issuer of JWTs on this machine."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "gateway"
#: The issuer's first key, which it calls `one`.
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(private: Any, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    kind = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    writer = next((one for type_, one in kind.items() if isinstance(private, type_)), jwt.algorithms.OKPAlgorithm)
    document = json.loads(writer.to_jwk(private.public_key()))
    document.pop("key_ops", None)
    return {**document, **({"kid": kid} if kid is not None else {}), **more}


class Issuer(ThreadingHTTPServer):
    """An issuer on this machine: its keys, its configuration, and what goes wrong with them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.keys: list[Any] = [jwk(RSA)]
        self.named = self.url
        self.asked: list[str] = []
        self.status = 200
        self.location: str | None = None
        self.body: bytes | None = None
        self.drip_s = 0.0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Answering(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        issuer = self.server
        issuer.asked.append(self.path)
        document: Any = {"keys": issuer.keys}
        if self.path == "/.well-known/openid-configuration":
            document = {"issuer": issuer.named, "jwks_uri": f"{issuer.url}keys"}
        raw = issuer.body if issuer.body is not None else json.dumps(document).encode()
        self.send_response(issuer.status)
        if issuer.location:
            self.send_header("Location", issuer.location)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        try:
            for start in range(0, len(raw), 1 if issuer.drip_s else len(raw)):
                self.wfile.write(raw[start : start + (1 if issuer.drip_s else len(raw))])
                self.wfile.flush()
                time.sleep(issuer.drip_s)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def token(
    issuer: Issuer, key: Any = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any
) -> bytes:
    """A good token, but for what is said; a claim that is None is left out."""
    now_s = int(time.time())
    said = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "iat": now_s, "exp": now_s + 600, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    named = {name: value for name, value in {"kid": "one", **(header or {})}.items() if value is not None}
    return jwt.encode(said, key, algorithm, named).encode()
