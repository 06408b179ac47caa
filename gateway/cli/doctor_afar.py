"""What `gateway doctor` looks at elsewhere: providers, Braintrust, their clocks, and a trace's way there."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

import httpx

from gateway import routes
from gateway.assembly import Delivery, build, database, deliveries, migrate
from gateway.cli.doctor import Check, Finding
from gateway.core.calls import Call, Caller, Deployment
from gateway.core.endpoints import CHAT
from gateway.core.routing import plan
from gateway.core.usage import usage_of
from gateway.errors import GatewayError, StoreUnavailable
from gateway.settings import Settings, withdraw
from gateway.storage.faults import StorageBusy, StorageError
from gateway.tracing.delivery import Piece, Undelivered
from gateway.tracing.ids import Ids
from gateway.tracing.record import Record
from gateway.tracing.rows import bare
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool

_CONNECT_S = 3.0
_SKEW_WARN_S = 5.0
_CALL_S = 60.0
_REDIS_WARN_MS = 250.0
_SCRATCH_BYTES = 8 << 20
_BRAINTRUST = "https://www.braintrust.dev"

#: Public addresses of the providers that are used most; LiteLLM keeps those of the others in code.
_PUBLIC = {
    "anthropic": "https://api.anthropic.com",
    "deepseek": "https://api.deepseek.com",
    "fireworks_ai": "https://api.fireworks.ai",
    "gemini": "https://generativelanguage.googleapis.com",
    "groq": "https://api.groq.com",
    "mistral": "https://api.mistral.ai",
    "openai": "https://api.openai.com",
    "openrouter": "https://openrouter.ai",
    "perplexity": "https://api.perplexity.ai",
    "together_ai": "https://api.together.xyz",
    "xai": "https://api.x.ai",
}


def checks(settings: Settings) -> list[Check]:
    """The checks that ask others. None of them calls a model."""
    return [
        Check("providers", lambda: _providers(settings)),
        Check("clock", lambda: _clock(settings)),
        *([Check("postgres", lambda: _postgres(settings))] if settings.database_url is not None else []),
        *([Check("redis", lambda: _redis(settings))] if settings.redis_url is not None else []),
        Check("spooling", lambda: _spooling(settings)),
        *(Check(delivery.sink, partial(_destination, delivery)) for delivery in deliveries(settings)),
    ]


def call(settings: Settings, model: str) -> Check:
    """The check that calls a model."""
    return Check("call", lambda: _call(settings, model), _CALL_S + 5)


def _addresses(settings: Settings) -> dict[str, list[str]]:
    """Address to the providers that are configured there; those whose address is not known under an empty one."""
    found: dict[str, list[str]] = {}
    for name, credential in sorted(settings.credentials.items()):
        if credential.missing is None:
            family = "openai" if name == "text-completion-openai" else name
            found.setdefault(credential.api_base or _PUBLIC.get(family, ""), []).append(name)
    for _, target in routes.read(settings).targets:
        names = found.setdefault(target.reach.api_base or _PUBLIC.get(target.provider, ""), [])
        if target.reach.missing is None and target.provider not in names:
            names.append(target.provider)
    return {address: names for address, names in found.items() if names}


def _providers(settings: Settings) -> Iterator[Finding]:
    addresses = _addresses(settings)
    unknown = addresses.pop("", [])
    if not addresses and not unknown:
        yield Finding("ok", "providers", "none is configured, so none was tried")
        return
    if unknown:
        yield Finding("ok", "providers", f"{', '.join(unknown)}: the address is LiteLLM's to know, and was not tried")
    with ThreadPoolExecutor(16) as pool:
        tried = list(pool.map(_connect, addresses))
    for (address, names), fault in zip(addresses.items(), tried, strict=True):
        saw = f"{', '.join(names)} at {_host(address)}"
        if fault is None:
            yield Finding("ok", "providers", f"{saw} can be reached")
        else:
            advice = "calls to it fail: look at its address, the name server and the firewall"
            yield Finding("fail", "providers", f"{saw}: {fault}", advice)


def _connect(address: str) -> str | None:
    """Open a connection, and speak TLS where the address wants that. Returns what went wrong."""
    parts = urlsplit(address)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        with socket.create_connection((host, parts.port or (443 if secure else 80)), timeout=_CONNECT_S) as plain:
            if secure:
                context = httpx.create_ssl_context()
                with context.wrap_socket(plain, server_hostname=host):
                    pass
    except ssl.SSLError as error:
        return f"TLS fails ({error.reason or type(error).__name__})"
    except OSError as error:
        return f"{error.strerror or error or type(error).__name__}"
    return None


def _host(address: str) -> str:
    return urlsplit(address).netloc


def _clock(settings: Settings) -> Iterator[Finding]:
    asked = [address for address in _addresses(settings) if address]
    if settings.braintrust_api_key is not None:
        asked.insert(0, settings.braintrust_app_url or _BRAINTRUST)
    if not asked:
        yield Finding("ok", "clock", "nothing is configured to compare it with")
        return
    with ThreadPoolExecutor(8) as pool:
        for address, skew_s in zip(asked, pool.map(_skew_s, asked[:8]), strict=False):
            if skew_s is None:
                continue
            way = "ahead of" if skew_s > 0 else "behind"
            saw = f"within a second of {_host(address)}'s" if abs(skew_s) < 1 else ""
            saw = saw or f"{abs(skew_s):.0f} s {way} {_host(address)}'s"
            bad = abs(skew_s) > _SKEW_WARN_S
            advice = "times in traces are wrong, and signed requests may be refused: run NTP" if bad else ""
            yield Finding("warn" if bad else "ok", "clock", saw, advice)
            return
    yield Finding("warn", "clock", "nobody answered with a time to compare it with")


def _skew_s(address: str) -> float | None:
    """Seconds that this machine is ahead; a `Date` has whole ones. The request has no key and no body."""
    try:
        with httpx.Client(timeout=_CONNECT_S, follow_redirects=False) as client:
            asked_s = time.time()
            told = client.head(address).headers.get("date")
            middle_s = (asked_s + time.time()) / 2
        return middle_s - (parsedate_to_datetime(told).timestamp() + 0.5) if told else None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TypeError):
        return None


def _postgres(settings: Settings) -> Iterator[Finding]:
    shared = database(settings)
    began_s = time.monotonic()
    try:
        version, tables = shared.write(
            lambda connection: (
                connection.exec_driver_sql("SHOW server_version").scalar_one(),
                connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar_one(),
            )
        )
    except StorageBusy as error:
        yield Finding("warn", "postgres", str(error), "callers' stored responses wait: look for who holds it")
        return
    except StorageError as error:
        yield Finding("fail", "postgres", str(error), "the gateway would not start: mend it, or DATABASE_URL")
        return
    finally:
        shared.release()
    saw = f"{shared.name}: Postgres {version}, answered in {1000 * (time.monotonic() - began_s):.0f} ms"
    yield Finding("ok", "postgres", saw if tables else f"{saw}; its tables are made at the first start")


def _redis(settings: Settings) -> Iterator[Finding]:
    from gateway.storage.redis import RedisCounters  # noqa: PLC0415

    assert settings.redis_url is not None
    began_s = time.monotonic()
    try:
        counted = RedisCounters(settings.redis_url)
        counted.check()
    except StorageError as error:
        yield Finding("fail", "redis", str(error), "mend REDIS_URL")
    except StoreUnavailable as error:
        advice = "limits and budgets cannot be counted: mend it, or REDIS_URL"
        yield Finding("fail", "redis", str(error.__cause__ or error), advice)
    else:
        spent_ms = 1000 * (time.monotonic() - began_s)
        slow = "each call asks it: it should be near" if spent_ms > _REDIS_WARN_MS else ""
        saw = f"{counted.name}: a connection and a write took {spent_ms:.0f} ms"
        yield Finding("warn" if slow else "ok", "redis", saw, slow)


class _Recording:
    """A destination (tracing.delivery.Destination) that keeps what it gets."""

    limit_bytes = 1 << 20

    def __init__(self) -> None:
        self.ids: list[str] = []

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Keep them."""
        self.ids += [piece.id for piece in pieces]

    def close(self) -> None:
        """Nothing is open."""


def _test_trace() -> Record:
    ids, now_s = Ids.new(None), time.time()
    facts = {"request_id": f"req_{secrets.token_hex(16)}", "doctor": True}
    root = bare(ids, "gateway doctor", "task", now_s, now_s, facts)
    return Record([bare(ids.child(), "gateway doctor", "llm", now_s, now_s, {}), root])


def _spooling(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir / f".doctor-{secrets.token_hex(4)}"
    record, recording = _test_trace(), _Recording()
    sender = Sender(folder, recording, name="doctor", cap_bytes=_SCRATCH_BYTES)
    spool = Spool(folder, sender, name="doctor", cap_bytes=_SCRATCH_BYTES, refuse=True)
    began_s = time.monotonic()
    try:
        spool.start()
        root = {**record.rows[-1], "metrics": {"start": record.rows[-1]["metrics"]["start"]}}
        spool.begin(root, None, 0)
        spool.write(record)
        spool.close(5.0, insist=True)
    except GatewayError:
        yield Finding("fail", "spooling", "a test trace cannot be kept", "no trace is safe: see the data folder")
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    spent_ms = 1000 * (time.monotonic() - began_s)
    if [row["id"] for row in record.rows] == recording.ids:
        yield Finding("ok", "spooling", f"a test trace went through a spool and was read back, in {spent_ms:.0f} ms")
    else:
        saw = f"of a test trace {len(recording.ids)} rows came out of a spool that got {len(record.rows)}"
        yield Finding("fail", "spooling", saw, "no trace is safe: see the data folder")


def _destination(delivery: Delivery) -> Iterator[Finding]:
    name, destination = delivery.sink, delivery.destination
    record = _test_trace()
    root, line = record.rows[-1], record.encoded[-1]
    try:
        if (check := getattr(destination, "check", None)) is None:
            return  # nothing to sign in at
        org = check()
        project = (delivery.place or {}).get("project_name")
        signed_in = f"signed in to {org or 'an organisation without a name'}; project {project} is there"
        yield Finding("ok", name, signed_in if project is not None else f"{org} answers")
        destination.deliver([Piece(root["id"], line, delivery.place)])
        yield Finding("ok", name, f"it took a test trace: row {root['id']}, span {root['span_id']}, 'gateway doctor'")
    except Undelivered as error:
        refused = getattr(error, "refused", True)
        advice = "mend the key, the organisation or the address" if refused else "traces are kept, and tried again"
        yield Finding("fail", name, str(error), advice)
    finally:
        destination.close()


def _call(settings: Settings, model: str) -> Iterator[Finding]:
    for name, value in settings.identity.items():  # LiteLLM reads a cloud's identity from there alone
        os.environ.setdefault(name, value)
    withdraw(os.environ, routes.read(settings).key_variables)  # as in a gateway that serves
    migrate(settings)
    gateway = build(settings)
    body = {"model": model, "messages": [{"role": "user", "content": "Say OK."}], "max_completion_tokens": 32}
    now_s = time.monotonic()
    asked = Call(
        id=f"req_{secrets.token_hex(16)}",
        endpoint=CHAT,
        caller=Caller("doctor", "doctor"),
        body=body,
        model=model,
        stream=False,
        started_s=time.time(),
        arrived_s=now_s,
        deadline_s=now_s + _CALL_S,
        tags=("gateway-doctor",),
    )
    try:
        if gateway.preload is not None:
            gateway.preload()
        gateway.open()
        reply = gateway.run(asked)
    except GatewayError as error:
        code = error.public_code or error.public_type
        yield Finding("fail", "call", f"{model} ({asked.id}): {code}: {error.message}", "see docs/errors.md")
        return
    finally:
        gateway.close(2.0)
    headers, usage = reply.headers(), usage_of(json.loads(reply.body or b"{}").get("usage"))
    provider = headers["x-gateway-provider"]
    name = headers["x-gateway-model-id"].removeprefix(f"{provider}/")
    saw = f"{provider}/{name} answered in {time.monotonic() - now_s:.1f} s ({asked.id})"
    if usage is None:
        yield Finding("warn", "call", saw, "it counted no tokens: traces have estimates")
        return
    saw += f": {usage.prompt} + {usage.completion} tokens"
    planned = [one.deployment for one in plan(model, gateway.catalogue)]
    answered = next((one for one in planned if one.name == f"{provider}/{name}"), Deployment(provider, name))
    if (cost := gateway.meter.cost(answered, usage)) is not None:
        yield Finding("ok", "call", f"{saw}, {cost:f} USD" if cost else f"{saw}, free")
    else:
        yield Finding("warn", "call", f"{saw}, and no price is known", "traces have no cost: add it to GATEWAY_PRICES")
