"""Small builders: each makes one thing as a test wants it, with defaults for what the test is not about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.auth import Authenticator
from gateway.auth.tokens import StaticTokens
from gateway.core.calls import Attempt, Call, Caller, Chunk, Deployment, Parent
from gateway.core.endpoints import CHAT
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.routing import Catalogue, Reach
from gateway.core.wire import data_event, dumps
from gateway.pipeline import Gateway, Limits
from gateway.secret import Secret
from gateway.settings import Settings
from gateway.tracing import Sink, Tracer
from gateway.tracing.catcher import Catcher
from gateway.tracing.record import Record
from gateway.upstream import Upstream
from gateway.upstream.counting import Counting
from gateway.upstream.failures import stopped
from gateway.upstream.lanes import Lanes
from gateway.upstream.scripted import Scripted, count
from gateway.watcher import Watcher

JSON = dict[str, Any]

TOKEN = "sk-builders-token-1"
ECHO = frozenset({"demo/echo"})


def call(model: str = "demo/echo", text: str = "hi", *, stream: bool = False, **fields: Any) -> Call:
    """Make a call. `body=` adds to the body (its `messages` replace `text`); other fields are `Call`'s own."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields.pop("body", {})}
    if stream:
        body["stream"] = True
    now_s = time.monotonic()
    given: JSON = {
        "id": "req_" + "1" * 32,
        "endpoint": CHAT,
        "caller": Caller("tok_12345678", "tok_12345678"),
        "started_s": time.time(),
        "arrived_s": now_s,
        "deadline_s": now_s + 30,
        **fields,
    }
    return Call(body=body, model=model, stream=stream, **given)


def attempt(name: str = "openai/gpt-test", **reach: Any) -> Attempt:
    """Make a try of `provider/model`. `reach` is what a `Deployment` has besides; a key may be a plain text."""
    number = reach.pop("number", 1)
    provider, _, model = name.partition("/")
    if isinstance(key := reach.get("api_key"), str):
        reach["api_key"] = Secret(key)
    return Attempt(Deployment(provider, model, **reach), number=number)


def settings(**environ: str) -> Settings:
    """Read settings from these variables alone."""
    return Settings.load(environ)


def catalogue(
    *names: str, models: Mapping[str, Mapping[str, Any]] | None = None, demo: frozenset[str] = frozenset()
) -> Catalogue:
    """Make a catalogue in which the named providers have a key and nothing is missing."""
    return Catalogue({name: Reach(Secret(f"key-of-{name}")) for name in names}, models or {}, demo)


@dataclass
class Recorder:
    """A sink that keeps the rows of each trace."""

    traces: list[list[JSON]] = field(default_factory=list)
    parents: list[Parent | None] = field(default_factory=list)
    begun: list[JSON] = field(default_factory=list)

    def start(self) -> None:
        """Nothing to make ready."""

    def begin(self, row: JSON, parent: Parent | None, body_bytes: int) -> None:
        self.begun.append(row)

    def write(self, record: Record) -> None:
        self.traces.append(list(record.rows))
        self.parents.append(record.parent)

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Nothing is held that must go elsewhere."""

    def backlog(self) -> None:
        """Nothing waits here."""

    @property
    def roots(self) -> list[JSON]:
        """The last row of each trace."""
        return [rows[-1] for rows in self.traces]

    @property
    def spans(self) -> list[JSON]:
        """The rows under the root of the last trace."""
        return self.traces[-1][:-1]


def tracer(
    *sinks: Sink, secrets: Sequence[str] = (), prices: JSON | None = None, catcher: Catcher | None = None
) -> Tracer:
    """Make a tracer that hands its rows to `sinks`."""
    return Tracer(list(sinks), catcher or Catcher(), Redactor(secrets), Meter(Prices(prices or {})), "test-project")


#: One step of a scripted answer: a chunk's delta (and more), an error to raise, or something to do.
Step = JSON | Exception | Callable[[Call], None] | None


def delta(text: str | None = None, **fields: Any) -> JSON:
    """A chunk with one choice that says `text` (and `fields`)."""
    said = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": {**said, **fields}, "finish_reason": None}]}


def finish(reason: str = "stop", index: int = 0) -> JSON:
    """The chunk that ends a choice."""
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


ROLE = delta(role="assistant", content="")


@dataclass
class Script:
    """An upstream that plays steps: for each attempt the next script, and the last one again and again.

    An error as the first step is raised by `open`. It notes what was opened and closed. A step that is None is silence,
    where the answer tells of it itself: then it is read in the thread that writes.
    """

    scripts: list[Sequence[Step]]
    tells_silence: bool = False
    opened: list[Attempt] = field(default_factory=list)
    closed: list[Attempt] = field(default_factory=list)

    def start(self) -> None:
        """Nothing to make ready."""

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        return self.tells_silence

    def open(self, attempt: Attempt, call: Call) -> _Scripted:
        number = len(self.opened)
        self.opened.append(attempt)
        steps = self.scripts[min(number, len(self.scripts) - 1)]
        if steps and isinstance(steps[0], Exception):
            raise steps[0]
        answer = _Scripted(self, attempt, call, steps)
        if not call.stream:
            answer.read()
        return answer


class _Scripted:
    """One scripted answer (upstream.Answer)."""

    def __init__(self, script: Script, attempt: Attempt, call: Call, steps: Sequence[Step]) -> None:
        self._script = script
        self._attempt = attempt
        self._call = call
        self._steps = steps
        self.tells_silence = script.tells_silence
        self.body = b""

    def read(self) -> None:
        for _ in self.chunks():
            pass
        document = {"choices": self._attempt.transcript.said()}
        self.body = dumps(document)

    def chunks(self) -> Iterator[Chunk | None]:
        for step in self._steps:
            if (error := stopped(self._call.cancellation)) is not None:
                raise error
            if isinstance(step, Exception):
                raise step
            if step is None:
                if self.tells_silence:
                    yield None
            elif isinstance(step, dict):
                yield Chunk(data_event(step), self._attempt.transcript.add(step))
            else:
                step(self._call)

    def close(self) -> None:
        self._script.closed.append(self._attempt)


def says(*words: str) -> list[Step]:
    """A good answer, a chunk a word."""
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": len(words)}}
    return [ROLE, *(delta(word) for word in words), finish(), usage]


def gateway(
    upstream: Upstream | None = None,
    *sinks: Sink,
    tick_s: float = 0.02,
    cors_origins: Sequence[str] = (),
    providers: Sequence[str] = ("openai",),
    prices: JSON | None = None,
    **limits: Any,
) -> Gateway:
    """Make a gateway, not opened: `demo/echo` is the real one, all other models go to `upstream`."""
    made = Lanes(Counting(count), Scripted())
    return Gateway(
        catalogue=catalogue(*providers, demo=ECHO),
        upstreams={"demo": made, "litellm": upstream or made},
        tracer=tracer(*sinks, prices=prices),
        meter=Meter(Prices(prices or {})),
        authenticator=Authenticator([StaticTokens([Secret(TOKEN)])]),
        limits=Limits(**limits),
        cors_origins=cors_origins,
        watcher=Watcher(tick_s),
    )
