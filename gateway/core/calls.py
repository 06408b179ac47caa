"""The nouns that every room speaks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from gateway.core.cachekey import Wish
from gateway.core.endpoints import Endpoint
from gateway.core.multipart import Form, Sent
from gateway.core.rights import ALL, UNLIMITED, Rights
from gateway.core.transcript import ChatTranscript, Transcript
from gateway.core.usage import Usage
from gateway.errors import GatewayError
from gateway.secret import Secret

JSON = dict[str, Any]


class Headers(Protocol):
    """The headers of a request: names in any case, values decoded as Latin-1 (PEP 3333)."""

    def get(self, name: str, /) -> str | None:
        """Return a header's value, or None."""


@dataclass(frozen=True)
class Caller:
    """Who calls, and what it may.

    Attributes:
        id: stands in traces and logs: `tok_` and 8 hex digits for a static token, `adm_` for the admin token, `key_`
            and the id of a virtual key, `jwt_` and 16 hex digits of issuer and subject, `oidc_` likewise for who has
            signed in to the pages at an issuer.
        tenant: keeps callers apart: who finds what was stored.
        kind: `token`, `admin`, `key`, `jwt` or `person`.
        key_id: of a virtual key, and `key_name` what its operator calls it.
        project: the name of the project that it belongs to, and `user` that of the user; `project_id` and `user_id` are
            their ids, where they are kept here.
        tags: of each of its traces.
        expires_s: from when on its credential is of no use if nothing changes, seconds since the epoch; None for never.
    """

    id: str
    tenant: str
    kind: str = "token"
    rights: Rights = UNLIMITED
    key_id: str | None = None
    key_name: str | None = None
    project: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    expires_s: float | None = None
    project_id: str | None = None
    user_id: str | None = None

    @property
    def grants(self) -> Rights:
        """The most that it may give to a key; the admin token calls no model and gives every right."""
        return ALL if self.kind == "admin" else self.rights


@dataclass(frozen=True)
class Deployment:
    """A model at a provider, with all that is needed to reach it. None of it comes from a request.

    `model` is the provider's own name; `api_base` None means the provider's public address; `priced_as` names provider
    and model whose price counts, None where they are its own, and `prices` stand over it: by LiteLLM's names, decimal
    numbers in US dollars. `relay` lets the provider's own operations pass without LiteLLM. `timeout_s` is how long its
    answer may be waited for, and `stream_timeout_s` how long a streamed one, where that differs; None is no bound.
    """

    provider: str
    model: str
    api_base: str | None = None
    api_key: Secret | None = None
    api_version: str | None = None
    priced_as: tuple[str, str] | None = None
    relay: bool = False
    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    prices: tuple[tuple[str, str], ...] = ()

    def __hash__(self) -> int:
        """Told once: a plan looks up each of dozens, in several tables."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.provider, self.model, self.api_base, self.api_key))

    def waits_s(self, *, stream: bool) -> float:
        """How many seconds may pass until its answer begins; a whole answer may pause for as long besides."""
        bounds = (self.stream_timeout_s, self.timeout_s) if stream else (self.timeout_s,)
        return next((bound for bound in bounds if bound is not None), math.inf)

    @property
    def priced_model(self) -> tuple[str, str]:
        """Provider and model whose price counts, below `prices`."""
        return self.priced_as or (self.provider, self.model)

    @property
    def name(self) -> str:
        """`provider/model`, as LiteLLM and traces write it."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class BillPart:
    """One line of a bill.

    Attributes:
        kind: what was used (`core.pricing.KINDS`).
        count: how much of it: whole, but of seconds.
        price_usd: US dollars for one.
        amount_usd: US dollars, exact: count times price.
    """

    kind: str
    count: int | Decimal
    price_usd: Decimal
    amount_usd: Decimal


@dataclass(frozen=True)
class Bill:
    """What one attempt used. None: nothing is known of it, or the model has no price.

    Attributes:
        estimated: the provider did not count it, or not to its end; `usage` is a guess.
        cost_usd: US dollars, exact: the sum of the parts.
        parts: what was paid for; none where there is no cost.
        unpriced: kinds besides tokens that were used (searches) and that the model has no price for.
        price: whose the price is, and of which row: `GATEWAY_PRICES: name`, `LiteLLM: name` or `the routes file: name`.
    """

    usage: Usage | None = None
    estimated: bool = False
    cost_usd: Decimal | None = None
    parts: tuple[BillPart, ...] = ()
    unpriced: tuple[str, ...] = ()
    price: str | None = None

    def document(self) -> JSON:
        """The bill as JSON, which keeps the prices that counted. Amounts are texts, as no float holds them."""
        document: JSON = {
            "cost_usd": None if self.cost_usd is None else plain(self.cost_usd),
            "price": self.price,
            "parts": [
                {
                    "kind": part.kind,
                    "count": part.count if isinstance(part.count, int) else plain(part.count),
                    "price_usd": plain(part.price_usd),
                    "amount_usd": plain(part.amount_usd),
                }
                for part in self.parts
            ],
        }
        if self.estimated:
            document["estimated"] = True
        if self.unpriced:
            document["unpriced"] = list(self.unpriced)
        if (usage := self.usage) is not None:
            if usage.tier is not None:
                document["tier"] = usage.tier
            if usage.modes:
                document["modes"] = list(usage.modes)
            if usage.claimed_usd is not None:
                document["claimed_usd"] = plain(usage.claimed_usd)
        return document


def plain(amount: Decimal) -> str:
    """Write an amount with all of its digits and nothing else: no exponent, no zeros behind the last digit."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass
class Attempt:
    """One try of a call at one deployment, and what became of it. `number` counts from 1.

    Attributes:
        transcript: what came, also of an attempt that failed half-way.
        dropped: parameters of the caller that this provider does not know.
        provider_headers: the provider's rate limits, as `x-provider-ratelimit-*`.
        started_s, first_content_s, ended_s: seconds since the epoch.
        bill: what it used and what that costs, once it has ended and somebody asked (`pricing.Meter`).
        sent: the chat completion that stood in for the caller's operation, or None where none had to.
        told: what the caller was told, where that is another wire than the provider's.
        metered: it is an attempt to have a model say something, which costs.
        name: the name of the catalogue that it is tried for: the one that was asked for, or a fallback.
        why: what the plan says of it, in a few words.
        media_type: of an answer that is neither JSON nor events; `disposition` is its `Content-Disposition`.
    """

    deployment: Deployment
    number: int = 1
    transcript: Transcript = field(default_factory=ChatTranscript)
    dropped: Sequence[str] = ()
    provider_headers: Mapping[str, str] = field(default_factory=dict)
    started_s: float = 0.0
    first_content_s: float | None = None
    ended_s: float | None = None
    error: GatewayError | None = None
    bill: Bill | None = None
    sent: JSON | None = None
    told: Transcript | None = None
    metered: bool = True
    name: str = ""
    why: str = ""
    media_type: str | None = None
    disposition: str | None = None


@dataclass(frozen=True)
class Remembered:
    """An answer of before, or of another call at the same time, that stood in for an attempt; it cost nothing.

    Attributes:
        attempt: the answer as an attempt, which none was: it stands among no attempts and has no bill.
        age_s: how old the answer was, seconds.
    """

    attempt: Attempt
    age_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        status: the HTTP status that the caller saw (200 for a stream that failed on its way).
        error: why it failed, or None.
        attempts: every try, in order.
        caller_gone: the caller left before the end.
        ended_s: seconds since the epoch.
        waited_s: seconds spent waiting for providers; the rest of the call's time is the gateway's own.
        limits: the ids of the limits and budgets that it was held to.
        routed_by: the strategy that chose the deployments; None where there was nothing to choose.
        remembered: the answer that the cache gave, or None.
        cache_asked: the cache had a part in the call.
    """

    status: int
    attempts: Sequence[Attempt]
    ended_s: float
    error: GatewayError | None = None
    caller_gone: bool = False
    waited_s: float = 0.0
    limits: Sequence[str] = ()
    routed_by: str | None = None
    remembered: Remembered | None = None
    cache_asked: bool = False

    @property
    def answered(self) -> Attempt | None:
        """The attempt that the caller's answer is from: the last one, or the one that the cache stood in for."""
        if self.attempts:
            return self.attempts[-1]
        return self.remembered.attempt if self.remembered is not None else None

    def overhead_s(self, started_s: float) -> float:
        """Seconds of the call that were the gateway's own. `started_s` is the call's, seconds since the epoch."""
        return max(0.0, self.ended_s - started_s - self.waited_s)


#: Why a call is stopped.
CALLER_GONE = "caller_gone"
DEADLINE = "deadline"
SHUTTING_DOWN = "shutting_down"
#: Why one attempt is stopped, and its call is not.
SLOW_START = "slow_start"


class Cancellation:
    """A call's stop switch. The first reason given stands; whoever holds a resource subscribes to free it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []
        self.reason: str | None = None

    def subscribe(self, hook: Callable[[], None]) -> None:
        """Run `hook` when the call is stopped; at once where it already is."""
        with self._lock:
            if self.reason is None:
                self._hooks.append(hook)
                return
        hook()

    def unsubscribe(self, hook: Callable[[], None]) -> None:
        """Forget `hook`; nothing happens where it is not known."""
        with self._lock:
            if hook in self._hooks:
                self._hooks.remove(hook)

    def abort(self, reason: str) -> None:
        """Stop the call: `CALLER_GONE`, `DEADLINE` or `SHUTTING_DOWN`; or one attempt of it: `SLOW_START`."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook()


@dataclass(frozen=True)
class Parent:
    """Where a trace hangs: an object of Braintrust's, and a span in it where `span_id` is set.

    `object_type` is `project_logs`, `experiment` or `playground_logs`; exactly one of `object_id` and
    `object_name` (projects only) is set, or neither for the gateway's own project.
    """

    object_type: str = "project_logs"
    object_id: str | None = None
    object_name: str | None = None
    row_id: str | None = None
    span_id: str | None = None
    root_span_id: str | None = None
    propagated: Mapping[str, Any] | None = None

    @property
    def place(self) -> str:
        """The object, as rights name it: `project_name:…`, `experiment_id:…`."""
        kind = self.object_type.removesuffix("_logs")
        return f"{kind}_id:{self.object_id}" if self.object_id is not None else f"{kind}_name:{self.object_name or ''}"


class Upload(Protocol):
    """A form with files that is still on its way (`uploads.Upload`)."""

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Read until `enough`, or to the end."""

    def body(self, model: str | None) -> Streamed:
        """The body for a provider, with its name of the model; None leaves the form as it is."""

    def content(self, file: Sent) -> bytes:
        """The bytes of one of its files."""

    @property
    def form(self) -> Form:
        """What is known of it."""

    def close(self) -> None:
        """Let go of what is kept."""


class Streamed(Protocol):
    """A body that comes in pieces; `size` is in bytes, and None where nobody knows it beforehand."""

    size: int | None

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass
class Call:
    """What a caller asked for, read and checked.

    Attributes:
        id: ours, `req_` and 32 hex digits; the caller's own id is `client_request_id`.
        body: the JSON object as it came, unknown fields included.
        raw: the text that it was read from; None where it was made here.
        stream: the caller wants Server-Sent Events.
        usage_asked: the caller asked for the usage chunk of a stream.
        started_s: seconds since the epoch; `deadline_s` and `arrived_s` are on the monotonic clock.
        provider_headers: the closed list of headers that travel on.
        recorded: how much of it a trace may keep: `full`, `metadata` (no content) or `off`.
        body_bytes: the size of the body, unpacked.
        traceparent: the caller's span (W3C Trace Context, section 3.2), where it is no place of Braintrust's.
        path_id: the id that stands in the path of the request, or None.
        deployment: the only one that can answer, `provider/model`; None where the model's name decides.
        history: items of the conversation before this call that the gateway keeps (Responses), oldest first.
        query: what of the request's query travels on, encoded.
        headers: those of the request that the catalogue's policies ask about, names in lower case.
        fallback: whether more than one deployment may be tried, and more than once.
        hurried: the caller set a deadline of its own, before the gateway's.
        upload: the body of a form; `body` then grows while that is read.
        content_type: of the form.
        pieces: its answer is passed on in pieces, be it events or not, as the head of the answer tells.
        cache: what the caller wants of the cache; None where it has no part in the call.
        name: that the caller gives to the request (`Idempotency-Key`), or None.
    """

    id: str
    endpoint: Endpoint
    caller: Caller
    body: JSON
    model: str
    stream: bool
    started_s: float
    arrived_s: float
    deadline_s: float
    client_request_id: str | None = None
    usage_asked: bool = False
    provider_headers: Mapping[str, str] = field(default_factory=dict)
    parent: Parent | None = None
    parent_note: str | None = None
    traceparent: str | None = None
    tags: Sequence[str] = ()
    recorded: str = "full"
    body_bytes: int = 0
    path_id: str | None = None
    deployment: str | None = None
    history: Sequence[JSON] = ()
    query: str = ""
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fallback: bool = True
    hurried: bool = False
    upload: Upload | None = None
    content_type: str = ""
    pieces: bool = False
    cache: Wish | None = None
    name: str | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def asked(self) -> Any:
        """What a trace shows as the call's input."""
        return self.endpoint.asked_of(self.body)


class Chunk(NamedTuple):
    """One piece of a streamed answer.

    `data` is what the caller gets, whole SSE events (empty where the piece is hidden from the caller);
    `content` is True for text, tool calls, reasoning or refusals: from there on the answer cannot change provider.
    `last` is True for the event that ends the stream, which is kept back until the call is settled. `piece` is the
    event as JSON, for who translates it.
    """

    data: bytes
    content: bool = False
    last: bool = False
    piece: Mapping[str, Any] | None = None
