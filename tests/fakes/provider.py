"""A scripted LLM provider: OpenAI's wires and Anthropic's, over real sockets.

`provider.script("some-model", answer("hi"), error(503))` says how requests for a model are answered: in this
order, the last reply again and again. What is not scripted is answered "hello there".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes import wires
from tests.fakes.loopback import Exchange, Loopback, Received
from tests.fakes.wires import JSON, Tokens

Headers = Mapping[str, str] | None


@dataclass(frozen=True)
class Turn:
    """One request being answered. `number` counts the provider's requests: ids made of it differ."""

    exchange: Exchange
    number: int

    @property
    def body(self) -> JSON:
        """What was asked, empty where that was no JSON object."""
        body = self.exchange.request.body
        return body if isinstance(body, dict) else {}

    @property
    def model(self) -> str | None:
        """The model that was asked for."""
        return self.exchange.request.model

    @property
    def anthropic(self) -> bool:
        """Whether the request speaks Anthropic's wire."""
        return "/messages" in self.path

    @property
    def path(self) -> str:
        """Where the request went, without its query."""
        return _path(self.exchange.request)


Action = Callable[[Turn], None]  # one step of a scripted stream


@dataclass(frozen=True)
class Reply:
    """What to do about one request, `delay` seconds after it came."""

    play: Action
    delay: float = 0.0


class FakeProvider(Loopback):
    """The provider. Starts when made; `close()` it or use `with`."""

    def __init__(self) -> None:
        self._scripts: dict[str, list[Reply]] = {}
        self._turns = 0
        super().__init__()

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.origin}/v1"

    @property
    def anthropic_url(self) -> str:
        """What an Anthropic client takes as its base URL."""
        return self.origin

    def script(self, model: str, *replies: Reply) -> None:
        """Answer requests for `model` with `replies` in order, the last one repeating. Replaces a script."""
        with self._changed:
            self._scripts[model] = list(replies)

    def handle(self, exchange: Exchange) -> None:
        """Play what the script of the request's model has next."""
        with self._changed:
            self._turns += 1
            turn = Turn(exchange, self._turns)
            replies = self._scripts.get(str(turn.model), [])
            reply = replies.pop(0) if len(replies) > 1 else next(iter(replies), None)
        reply = reply or self._unscripted(exchange.request)
        exchange.wait(reply.delay)
        reply.play(turn)

    def _unscripted(self, request: Received) -> Reply:
        match request.method, _path(request):
            case "POST", "/v1/chat/completions" | "/v1/messages" | "/v1/completions" | "/v1/responses":
                return answer() if isinstance(request.model, str) else error(400)
            case "POST", "/v1/embeddings":
                return embeddings() if isinstance(request.model, str) else error(400)
            case "POST", "/v1/messages/count_tokens":
                return plain_json({"input_tokens": 12})
            case "POST", "/v1/responses/input_tokens":
                return plain_json({"object": "response.input_tokens", "input_tokens": 12})
            case _, path if path.startswith("/v1/responses/resp_"):
                return stored(path.removeprefix("/v1/responses/"))
            case "GET", "/v1/models":
                models = [
                    {"id": name, "object": "model", "created": wires.CREATED, "owned_by": "fake"}
                    for name in sorted(self._scripts)
                ]
                return plain_json({"object": "list", "data": models})
            case _:
                return error(404)


# Replies.


def answer(
    text: str | Sequence[str] | None = "hello there",
    *,
    usage: Tokens = (12, 7),
    finish: str = "stop",
    message: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    n: int | None = None,
    echo: bool = False,
    headers: Headers = None,
    delay: float = 0.0,
) -> Reply:
    """Answer as a good provider does: on the wire and in the way (stream or not) that the request asks for.

    Args:
        text: of the one choice; a list is one choice a text; None is a message without content.
        usage: (prompt, completion) tokens, or the wire's own object; None leaves it out. An OpenAI stream has
            it only where `stream_options.include_usage` asked.
        finish: OpenAI's `finish_reason`; translated for Anthropic.
        message: further fields of the message, such as `tool_calls`; streamed in one delta after the text.
        extra: further fields at the top level, of every chunk too.
        n: so many choices with the same text; None follows the request's own `n`.
        echo: say "got " and the last user message instead of `text`.
    """

    def play(turn: Turn) -> None:
        said = f"got {wires.last_user_text(turn.body)}" if echo else text
        texts: list[str | None]
        if said is None or isinstance(said, str):
            texts = [said] * (n or turn.body.get("n") or 1)
        else:
            texts = list(said)
        whole = wires.Answer(texts, usage, finish, message or {}, extra or {})
        stream = turn.body.get("stream") is True
        if turn.path.endswith("/responses"):
            document = wires.response(whole, turn.number, turn.body)
            if not stream:
                return turn.exchange.respond_json(200, document, headers)
            actions = [event(one["type"], one) for one in wires.response_events(document)]
        elif turn.anthropic:
            said_message = wires.anthropic_message(whole, turn.number, turn.model)
            if not stream:
                return turn.exchange.respond_json(200, said_message, headers)
            actions = [event(one["type"], one) for one in wires.anthropic_events(said_message)]
        else:
            chat = turn.path.endswith("/chat/completions")
            if not stream:
                build = wires.openai_completion if chat else wires.text_completion
                return turn.exchange.respond_json(200, build(whole, turn.number, turn.model), headers)
            with_usage = (turn.body.get("stream_options") or {}).get("include_usage") is True
            take_apart = wires.openai_chunks if chat else wires.text_chunks
            chunks = take_apart(whole, turn.number, turn.model, with_usage)
            actions = [*(data(chunk) for chunk in chunks), done()]
        return sse(*actions, headers=headers).play(turn)

    return Reply(play, delay)


def embeddings(*vectors: Sequence[float], tokens: int | None = 5, headers: Headers = None, delay: float = 0.0) -> Reply:
    """Answer with these vectors; without any, with one of three numbers for each input."""

    def play(turn: Turn) -> None:
        asked = turn.body.get("input")
        count = len(asked) if isinstance(asked, list) and asked and not isinstance(asked[0], int) else 1
        found = vectors or [(0.5, -0.25, 1.0)] * count
        turn.exchange.respond_json(200, wires.embeddings(found, tokens, turn.body), headers)

    return Reply(play, delay)


def stored(path: str) -> Reply:
    """Answer about a response that is kept, whatever its id, as a provider does for all who share a key.

    Args:
        path: what follows `/v1/responses/`, the id first.
    """
    response_id, _, about = path.partition("/")
    kept = wires.Answer(["kept answer"], (12, 7), "stop", {}, {"id": response_id})

    def play(turn: Turn) -> None:
        document = wires.response(kept, turn.number, {"model": "kept"})
        match turn.exchange.request.method, about:
            case "GET", "" if "stream=true" in turn.exchange.request.path:
                sse(*(event(one["type"], one) for one in wires.response_events(document))).play(turn)
            case "GET", "":
                turn.exchange.respond_json(200, document)
            case "DELETE", "":
                turn.exchange.respond_json(200, {"id": response_id, "object": "response", "deleted": True})
            case "POST", "cancel":
                turn.exchange.respond_json(200, {**document, "status": "cancelled"})
            case "GET", "input_items":
                items = [{"id": "msg_asked", "type": "message", "role": "user", "content": []}]
                turn.exchange.respond_json(200, {"object": "list", "data": items, "has_more": False})
            case _:
                error(404).play(turn)

    return Reply(play)


def sse(*actions: Action, status: int = 200, headers: Headers = None, delay: float = 0.0) -> Reply:
    """Stream: the head at once, then the actions, then the clean end of a chunked body."""
    head = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        **(headers or {}),
    }

    def play(turn: Turn) -> None:
        turn.exchange.begin(status, head)
        _all(actions)(turn)
        turn.exchange.finish()

    return Reply(play, delay)


def error(status: int, body: Any = None, *, headers: Headers = None, delay: float = 0.0) -> Reply:
    """Refuse. A `body` that is text goes out as text, others as JSON; None is the wire's own error object."""

    def play(turn: Turn) -> None:
        if isinstance(body, str):
            head = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
            turn.exchange.respond(status, head, body.encode())
            return
        fault: JSON = {"message": f"scripted error {status}", "type": "scripted_error"}
        if turn.anthropic:
            default: JSON = {"type": "error", "error": fault}
        else:
            default = {"error": {**fault, "param": None, "code": None}}
        turn.exchange.respond_json(status, default if body is None else body, headers)

    return Reply(play, delay)


def plain_json(body: Any, status: int = 200, *, headers: Headers = None, delay: float = 0.0) -> Reply:
    """Send this JSON, whatever was asked for: also where that was a stream."""
    return Reply(lambda turn: turn.exchange.respond_json(status, body, headers), delay)


def raw(status: int, headers: Headers = None, body: bytes = b"", *, delay: float = 0.0) -> Reply:
    """Send exactly this; a Content-Length is added unless `headers` say how the body is framed."""
    return Reply(lambda turn: turn.exchange.respond(status, headers or {}, body), delay)


def redirect(url: str, status: int = 307, *, delay: float = 0.0) -> Reply:
    """Send the client elsewhere."""
    return raw(status, {"Location": url}, delay=delay)


def drop(how: Literal["reset", "close"] = "close", *, delay: float = 0.0) -> Reply:
    """End the connection before any header: `close` with a FIN, `reset` with a RST."""
    return Reply(reset() if how == "reset" else close(), delay)


def hang(*, delay: float = 0.0) -> Reply:
    """Read the request and never answer; lasts until the client leaves."""
    return Reply(silence(), delay)


# Steps of a stream.


def delta(fields: Mapping[str, Any], finish: str | None = None, index: int = 0) -> Action:
    """Send an OpenAI chunk with this delta."""
    return _chunk([{"index": index, "delta": dict(fields), "finish_reason": finish}])


def usage(prompt: int | JSON, completion: int = 0, **more: Any) -> Action:
    """Send OpenAI's usage chunk (no choices), asked for or not; `prompt` may be the whole usage object."""
    tokens = prompt if isinstance(prompt, dict) else wires.openai_usage((prompt, completion))
    return _chunk([], usage={**tokens, **more})


def data(payload: Any) -> Action:
    """Send `data: …`; what is not text goes as JSON."""
    line = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return raw_bytes(f"data: {line}\n\n".encode())


def event(name: str, payload: Any) -> Action:
    """Send a named event, as Anthropic does."""
    return raw_bytes(f"event: {name}\ndata: {json.dumps(payload, ensure_ascii=False)}\n\n".encode())


def done() -> Action:
    """Send `data: [DONE]`."""
    return data("[DONE]")


def raw_bytes(piece: bytes) -> Action:
    """Send bytes as they are, in one write."""
    return lambda turn: turn.exchange.send(piece)


def split(piece: bytes, at: Sequence[int], gap_s: float = 0.01) -> Action:
    """Send bytes in several writes, parted at the offsets `at` and far enough apart to arrive one by one."""
    parts = zip([0, *at], [*at, len(piece)], strict=True)
    return _all(step for start, end in parts for step in (raw_bytes(piece[start:end]), pause(gap_s)))


def pause(seconds: float) -> Action:
    """Send nothing for a while."""
    return lambda turn: turn.exchange.wait(seconds)


def silence() -> Action:
    """Send nothing more and keep the connection until the client leaves."""
    return lambda turn: turn.exchange.wait(None)


def repeat(times: int, *actions: Action) -> Action:
    """Do the actions again and again."""
    return _all(actions * times)


def reset() -> Action:
    """Cut the connection with a RST."""
    return lambda turn: turn.exchange.reset()


def close() -> Action:
    """End the connection with a FIN, the body without its terminator."""
    return lambda turn: turn.exchange.hang_up()


def _all(actions: Iterable[Action]) -> Action:
    steps = tuple(actions)

    def play(turn: Turn) -> None:
        for step in steps:
            step(turn)

    return play


def _chunk(choices: list[JSON], **more: Any) -> Action:
    def play(turn: Turn) -> None:
        head = wires.openai_envelope("chat.completion.chunk", turn.number, turn.model)
        data({**head, "choices": choices, **more})(turn)

    return play


def _path(request: Received) -> str:
    return request.path.partition("?")[0]
