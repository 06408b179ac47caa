"""The OpenAI SDK's client below LiteLLM, without its own work where nobody has a use for it.

The SDK builds each request header by header and makes models of each answer: a third of the CPU of a call by LiteLLM.
Where the caller's own body goes out and the provider's own bytes come back, neither is seen by anybody. So the first
request of a client goes by the SDK, and the door notes how it was put; the next ones are put likewise. Whatever is not
plainly the same goes by the SDK, and so does each failure: what is raised is the SDK's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.wire import loads
from gateway.upstream import exchange as wire
from gateway.upstream.door import Door
from gateway.upstream.exchange import Asked, Exchange

log = logging.getLogger(__name__)

#: Options of a request that change nothing of how it is put: the body is the caller's, the times are the exchange's.
_WITHOUT_EFFECT = frozenset(("extra_json", "headers", "timeout"))


def install(handler: Any, carrier: Door) -> bool:
    """Let LiteLLM make its clients of the OpenAI SDK from a class of ours.

    Args:
        handler: LiteLLM's module of OpenAI-type providers.
        carrier: what the clients send through.

    Returns:
        Whether it was done: not where that module has no longer got the names that this is built on.
    """
    missing = [name for name in ("OpenAI", "LegacyAPIResponse", "RAW_RESPONSE_HEADER", "CustomStreamWrapper")
               if not hasattr(handler, name)]  # fmt: skip
    if missing:
        log.warning("this LiteLLM has no %s: its calls cost more CPU than they need to", ", ".join(missing))
        return False
    handler.OpenAI, handler.CustomStreamWrapper = _classes(handler, carrier)
    return True


def _classes(handler: Any, carrier: Door) -> tuple[Any, Any]:
    class Answered(handler.LegacyAPIResponse):  # type: ignore[misc]  # LiteLLM has no types
        """An answer that the exchange has (the SDK's LegacyAPIResponse)."""

        def __init__(self, exchange: Exchange) -> None:
            self._exchange = exchange

        @property
        def headers(self) -> Mapping[str, str]:
            """None: those of the exchange are read."""
            return {}

        def parse(self, **_to: Any) -> Unread | Document:
            """What LiteLLM makes its answer of."""
            return Unread() if self._exchange.body is None else Document(loads(self._exchange.body))

    class Client(handler.OpenAI):  # type: ignore[misc]  # as above
        """A client of the SDK's that puts a request as it put the first one."""

        _put_as: Asked | None = None

        def post(self, path: str, **request: Any) -> Any:
            """Send (the SDK's `post`)."""
            exchange = wire.current.get()
            if exchange is None or exchange.passes != path or exchange.sent or not _is_plain(request):
                return super().post(path, **request)
            asked = self._put_as
            # a key that is made anew for each request is none of the first one's
            if asked is None or asked.headers.get("authorization") != f"Bearer {self.api_key}":
                answer = super().post(path, **request)
                self._put_as = exchange.asked
                return answer
            if carrier.put(exchange, asked):
                return Answered(exchange)
            return super().post(path, **request)

    def _is_plain(request: dict[str, Any]) -> bool:
        options = request.get("options") or {}
        raw = {handler.RAW_RESPONSE_HEADER: "true"}
        return request.keys() <= {"body", "cast_to", "options", "stream", "stream_cls"} and (
            options.keys() <= _WITHOUT_EFFECT and dict(options.get("headers") or {}) == raw
        )

    class Stream(handler.CustomStreamWrapper):  # type: ignore[misc]  # as above
        """LiteLLM's stream of chunks; of what is left unread it needs to know nothing."""

        def __init__(self, completion_stream: Any, *arguments: Any, **more: Any) -> None:
            self._hidden_params: dict[str, object] = {}
            self.completion_stream = completion_stream
            if not isinstance(completion_stream, Unread):
                super().__init__(completion_stream, *arguments, **more)

    return Client, Stream


class Unread:
    """Stands for a stream that nobody reads here: whoever has the exchange reads the provider's bytes."""

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("the provider's bytes are read, not LiteLLM's chunks")


class Document:
    """An answer as the provider gave it, where LiteLLM expects a model of the SDK's."""

    def __init__(self, document: Any) -> None:
        self._document = document

    def model_dump(self, **_options: Any) -> Any:
        """The document itself (pydantic's `model_dump`)."""
        return self._document
