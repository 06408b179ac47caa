"""What a provider can do wrong, each at the first of two deployments of one name; shared by a test and a bench."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from tests.fakes.provider import (
    Action,
    FakeProvider,
    Reply,
    answer,
    delta,
    drop,
    error,
    hang,
    plain_json,
    raw,
    raw_bytes,
    redirect,
    reset,
    silence,
    sse,
)
from tests.served.caller import Caller, Streamed
from tests.served.process import PROVIDER_KEY, TOKEN, Served

GOOD_WORDS = "the good one says"
#: Of the served gateway: so long a stream may be silent, and so long may a call take.
IDLE_S, TIMEOUT_S = 1.0, 4.0

_JSON = {"Content-Type": "application/json"}
_HALF = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"mess'


def _half(end: Action) -> Reply:
    """The head and a part of an answer that is not streamed, and then `end`."""

    def play(turn: object) -> None:
        turn.exchange.begin(200, _JSON)  # type: ignore[attr-defined]
        turn.exchange.send(_HALF)  # type: ignore[attr-defined]
        end(turn)  # type: ignore[arg-type]

    return Reply(play)


def _either(whole: Reply, streamed: Reply) -> Reply:
    """One reply to a request for a whole answer, another to one for a stream."""
    return Reply(lambda turn: (streamed if turn.body.get("stream") is True else whole).play(turn))


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        reply: what the deployment does; None where it is no server of the fake's at all.
        place: where it is then: `closed` (nobody listens) or `tls` (a certificate that nobody trusts).
        whole: what a call that is not streamed is told by, `good` or a status; and `streamed` likewise, where `error`
            is an error event after the status 200.
        takes_s: how long either may take, at the most.
    """

    name: str
    reply: Callable[[FakeProvider], Reply] | None = None
    place: str = ""
    whole: str = "good"
    streamed: str = "good"
    takes_s: tuple[float, float] = (2.0, 2.0)


FAULTS: Sequence[Fault] = (
    Fault("refused", place="closed"),
    Fault("reset before headers", lambda _trap: drop("reset")),
    Fault("closed before headers", lambda _trap: drop("close")),
    Fault("500", lambda _trap: error(500)),
    Fault("503, Retry-After", lambda _trap: error(503, headers={"Retry-After": "20"})),
    Fault("429, seconds", lambda _trap: error(429, headers={"Retry-After": "20"})),
    Fault(
        "429, a date",
        lambda _trap: error(429, headers={"Retry-After": formatdate(time.time() + 20, usegmt=True)}),
    ),
    Fault("401", lambda _trap: error(401)),
    Fault("402", lambda _trap: error(402)),
    Fault("400", lambda _trap: error(400), whole="400", streamed="400"),
    Fault("404", lambda _trap: error(404), whole="404", streamed="404"),
    Fault("HTML 200", lambda _trap: raw(200, {"Content-Type": "text/html"}, b"<html><body>Welcome</body></html>")),
    Fault("{}", lambda _trap: plain_json({})),
    Fault("empty SSE", lambda _trap: sse()),
    Fault(
        *("silence before any content", lambda _trap: _either(hang(), sse(delta({"role": "assistant"}), silence()))),
        whole="504",
        takes_s=(TIMEOUT_S + 1, IDLE_S + 2),
    ),
    Fault(
        *("silence after some", lambda _trap: _either(_half(silence()), sse(delta({"content": "tok"}), silence()))),
        whole="504",
        streamed="error",
        takes_s=(TIMEOUT_S + 1, IDLE_S + 2),
    ),
    Fault(
        *("reset after some", lambda _trap: _either(_half(reset()), sse(delta({"content": "tok"}), reset()))),
        streamed="error",
    ),
    Fault("bad gzip", lambda _trap: raw(200, {**_JSON, "Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00nonsense")),
    Fault(
        *("bad gzip in a stream", lambda _trap: sse(raw_bytes(b"\x00nonsense"), headers={"Content-Encoding": "gzip"})),
    ),
    Fault("redirect", lambda trap: redirect(f"{trap.origin}/v1/chat/completions")),
    Fault("bad certificate", place="tls"),
)


@dataclass(frozen=True)
class Seen:
    """What a caller saw of one fault."""

    fault: Fault
    stream: bool
    status: int
    told_by: str
    attempts: int
    took_s: float

    def unmet(self) -> list[str]:
        """What was demanded and is not so."""
        wanted = self.fault.streamed if self.stream else self.fault.whole
        most_s = self.fault.takes_s[self.stream]
        tries = 2 if wanted == "good" else 1
        found = []
        if self.told_by != wanted:
            found.append(f"told by {self.told_by}, not {wanted}")
        if self.attempts != tries:
            found.append(f"{self.attempts} attempts, not {tries}")
        if self.took_s > most_s:
            found.append(f"took {self.took_s:.2f} s, more than {most_s} s")
        return [f"{self.fault.name}, {'streamed' if self.stream else 'whole'}: {one}" for one in found]


@dataclass
class Matrix:
    """A served gateway with a name for each fault: a deployment that has it, then a good one.

    Args:
        folder: an empty one.
        own: settings that differ from those of every start here.
    """

    folder: Path
    own: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.provider = stack.enter_context(FakeProvider())
            self.trap = stack.enter_context(FakeProvider())
            tls = stack.enter_context(_Distrusted())
            closed = socket.create_server(("127.0.0.1", 0))
            places = {
                "": self.provider.base_url,
                "closed": f"http://127.0.0.1:{closed.getsockname()[1]}/v1",
                "tls": f"https://127.0.0.1:{tls.port}/v1",
            }
            closed.close()
            self.provider.script("good", answer(GOOD_WORDS))
            entries = []
            for number, fault in enumerate(FAULTS):
                if fault.reply is not None:
                    self.provider.script(f"bad-{number}", fault.reply(self.trap))
                for model, base in ((f"bad-{number}", places[fault.place]), ("good", self.provider.base_url)):
                    params = f'{{model: hosted_vllm/{model}, api_base: "{base}", api_key: {PROVIDER_KEY}}}'
                    entries.append(f"  - {{model_name: fault-{number}, litellm_params: {params}}}")
            settings = {
                "GATEWAY_AUTH_TOKEN": TOKEN,
                "WEB_CONCURRENCY": "1",
                "GATEWAY_CONFIG_YAML": "\n".join(["model_list:", *entries, "open_catalogue: false"]),
                "GATEWAY_RELAY": "all",
                "GATEWAY_TIMEOUT_S": str(TIMEOUT_S),
                "GATEWAY_FIRST_BYTE_TIMEOUT_S": str(IDLE_S),
                "GATEWAY_IDLE_TIMEOUT_S": str(IDLE_S),
                **self.own,
            }
            self.served = stack.enter_context(Served(self.folder / "start", settings))
            self.caller = stack.enter_context(Caller(self.served.url, TOKEN))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def see(self, fault: Fault, *, stream: bool) -> Seen:
        """Make one call and say what its caller saw."""
        name, began_s = f"fault-{FAULTS.index(fault)}", time.monotonic()
        if stream:
            got = self.caller.stream(name)
            status, headers, told_by = got.status, got.headers, _told_by(got)
        else:
            response = self.caller.chat(name)
            status, headers = response.status_code, response.headers
            told_by = str(status)
            if status == 200:
                said = response.json()["choices"][0]["message"]["content"]
                told_by = "good" if said == GOOD_WORDS else said
        attempts = int(headers.get("x-gateway-attempted-retries", -1)) + 1
        return Seen(fault, stream, status, told_by, attempts, time.monotonic() - began_s)


def _told_by(got: Streamed) -> str:
    if got.status != 200:
        return str(got.status)
    if got.ends_well:
        return "good" if got.text() == GOOD_WORDS else got.text()
    return "error" if got.fails_once else "a silent cut"


class _Distrusted:
    """A server whose certificate nobody trusts; it answers nothing else."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._context)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                connection.settimeout(5)
                self._context.wrap_socket(connection, server_side=True).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)
