"""The translate lane: `litellm.completion`, for every provider. The only module that imports LiteLLM.

LiteLLM dials: it knows each provider's address, credentials and quirks. The door below it carries: for providers that
speak the caller's wire the caller's own body goes out and the provider's own bytes come back, since LiteLLM's
rebuilding loses fields both ways; for the others LiteLLM's translation stands.

Nothing of a request is ever a keyword argument but the parameters that the endpoint's row knows: `completion()` has
over 400 names of its own, and some of them choose hosts, keys, files and prices.
"""

from __future__ import annotations

import contextvars
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.providers import OPENAI_WIRE, SAME_WIRE, STAND_IN_TOOL
from gateway.core.transcript import Malformed
from gateway.core.wire import data_event, dumps
from gateway.errors import GatewayError, ProviderInvalid, ProviderStreamEnded
from gateway.upstream import door
from gateway.upstream.door import Door, Exchange
from gateway.upstream.failures import Failures
from gateway.upstream.relay import Relay, ended_early

_CHAT_PATH = "/chat/completions"

#: Known parameters that are LiteLLM's own arguments under the same name, or that its row of providers never translates:
#: they travel in the body alone.
_BODY_ONLY = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "store",
    }
)
_OURS = frozenset({"model", "messages", "stream", "stream_options"})

#: Where providers live whose address LiteLLM keeps in code.
_PUBLIC_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}

_RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-")


@dataclass
class _Order:
    """What the shim below Braintrust's patch really calls, and what that returned."""

    arguments: dict[str, Any]
    result: Any = None


_order: contextvars.ContextVar[_Order | None] = contextvars.ContextVar("order", default=None)


class LiteLLM:
    """Reaches any provider through LiteLLM.

    Args:
        failures: makes errors of what went wrong.
        first_byte_s, idle_s: how long a stream may be silent before its head, and between its bytes.
        patch: Braintrust's patch of the LiteLLM module, applied once after the import.
    """

    def __init__(self, failures: Failures, *, first_byte_s: float, idle_s: float, patch: Callable[[], None]) -> None:
        self._failures = failures
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._patch = patch

    def load(self) -> None:
        """Import and set LiteLLM up; seconds and 200 MB the first time in a process, nothing after that."""
        load(self._patch)

    def start(self) -> None:
        """Warm an imported LiteLLM: its first call builds tables and starts a thread, so not before the fork."""
        if _module is None:
            return
        order = _Order({"model": "openai/warm", "messages": [{"role": "user", "content": "."}], "mock_response": "."})
        token = _order.set(order)
        try:
            _module.completion(model="openai/warm", messages=[])
        finally:
            _order.reset(token)

    def close(self) -> None:
        """Close the idle connections to all providers."""
        _door.shut()

    def open(self, attempt: Attempt, call: Call) -> _Answer:
        """Send the call (Upstream.open)."""
        self.load()
        deployment = attempt.deployment
        outgoing = _Outgoing(attempt, call)
        exchange = Exchange(
            host=_host(deployment.provider, deployment.api_base),
            stream=call.stream,
            first_byte_s=self._first_byte_s,
            idle_s=self._idle_s,
            rewrite=outgoing,
        )
        call.cancellation.subscribe(exchange.abort)
        order = _Order(self._arguments(attempt, call))
        tokens = door.current.set(exchange), _order.set(order)
        try:
            _module.completion(model=deployment.name, messages=[], stream=call.stream)
        except GatewayError:
            raise
        except Exception as error:
            # LiteLLM wraps everything, its own bugs too, in classes of dozens of modules; the exchange knows better
            exchange.close()
            raise self._failures.of(deployment.provider, exchange, call.cancellation, error) from error
        finally:
            door.current.reset(tokens[0])
            _order.reset(tokens[1])
            attempt.sent = bool(exchange.sent)
            attempt.provider_headers = _rate_limits(exchange)
        relayed = deployment.provider in OPENAI_WIRE and exchange.path.endswith(_CHAT_PATH) and not outgoing.stand_in
        answer = _Answer(attempt, call, exchange, order.result, self._failures, relayed=relayed)
        if not call.stream:
            answer.read()
        return answer

    def _arguments(self, attempt: Attempt, call: Call) -> dict[str, Any]:
        """The keyword arguments of `litellm.completion`; a parameter gets here by its row alone."""
        deployment = attempt.deployment
        known = {
            name: call.body[name]
            for name in call.endpoint.parameters
            if name not in _OURS and name not in _BODY_ONLY and call.body.get(name) is not None
        }
        if deployment.provider not in OPENAI_WIRE:
            attempt.dropped = self._dropped(attempt, call, known)
        key = deployment.api_key.reveal() if deployment.api_key else None
        if key is None and deployment.provider in SAME_WIRE:
            key = "none"  # the OpenAI SDK insists on one; servers that need none ignore it
        arguments = {
            **known,
            "model": deployment.name,
            "messages": call.body["messages"],
            "api_base": deployment.api_base,
            "api_key": key,
            "max_retries": 0,
            "_skip_mcp_handler": True,  # a tool's server_url must not start LiteLLM's MCP gateway
            "timeout": max(0.001, call.deadline_s - time.monotonic()),
        }
        if deployment.api_version:
            arguments["api_version"] = deployment.api_version
        family = "openai-" if deployment.provider in OPENAI_WIRE else "anthropic-"
        headers = {name: value for name, value in call.provider_headers.items() if name.startswith(family)}
        if headers:
            arguments["extra_headers"] = headers
        if call.stream:
            arguments.update(stream=True, stream_options={"include_usage": True})
        return arguments

    def _dropped(self, attempt: Attempt, call: Call, known: dict[str, Any]) -> tuple[str, ...]:
        """Name the parameters that will not reach a provider of another wire."""
        supported = _module.get_supported_openai_params(
            model=attempt.deployment.model, custom_llm_provider=attempt.deployment.provider
        )
        lost = [name for name in call.body if name not in known and name not in _OURS and call.body[name] is not None]
        if supported is not None:
            lost += [name for name in known if name not in supported and name not in ("top_k", "thinking")]
        return tuple(sorted(lost))


# LiteLLM is one module with one state, so there is one of each of these in a process
_loading = threading.Lock()
_module: Any = None
_door = Door()


def load(patch: Callable[[], None]) -> None:
    """Import LiteLLM, put the door under it and apply `patch`; once in a process."""
    global _module
    with _loading:
        if _module is None:
            module = _import()
            _install(module)
            patch()
            _module = module


def _import() -> Any:
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads a .env of its own
    # else it fetches these from the net at import, or at a call
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import litellm  # noqa: PLC0415 - seconds and 200 MB, only where a deployment needs it

    return litellm


def _install(module: Any) -> None:
    module.sync_transport = _door  # every client of its own that LiteLLM makes from now on
    module.client_session = httpx.Client(
        transport=_door, follow_redirects=False, trust_env=False, timeout=600
    )  # every client that it makes from the OpenAI SDK
    module.in_memory_llm_clients_cache.flush_cache()
    module.module_level_client.client = module.client_session  # made at import
    module.suppress_debug_info = True
    module.telemetry = False
    module.drop_params = True  # what a provider does not know is left out; we name it in a header
    module.disable_streaming_logging = True  # rebuilds every chunk for callbacks that do not exist here
    module.user_url_validation = True
    # a model may repeat itself; LiteLLM raises after 100 equal chunks
    module.REPEATED_STREAMING_CHUNK_LIMIT = 1 << 62
    completion = module.completion

    def shim(**_seen: Any) -> Any:
        # Braintrust's patch sees only what is safe to show it: it takes any image_url or file_data that is no data
        # URL for a file name, opens it and keeps the content. The real call is in the order.
        order = _order.get()
        if order is None:
            raise RuntimeError("litellm.completion is called by gateway.upstream.litellm alone")
        order.result = completion(**order.arguments)
        return order.result

    module.completion = shim  # before the patch, so that the patch wraps it


def _host(provider: str, api_base: str | None) -> str | None:
    if api_base is None:
        return _PUBLIC_HOSTS.get(provider)
    address = urlsplit(api_base)
    if address.port is None or (address.scheme, address.port) in (("http", 80), ("https", 443)):
        return _bracketed(address.hostname or "")
    return f"{_bracketed(address.hostname or '')}:{address.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Outgoing:
    """Says what goes out instead of LiteLLM's body, where the provider speaks the caller's wire (Exchange.rewrite)."""

    def __init__(self, attempt: Attempt, call: Call) -> None:
        provider = attempt.deployment.provider
        self._own: bytes | None = None
        self._unknown: dict[str, Any] = {}
        #: LiteLLM put a tool of its own into the body, and will take it out of its answer.
        self.stand_in = False
        if provider in SAME_WIRE:
            own = {**call.body, "model": attempt.deployment.model}
            if call.stream:
                own["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
            self._own = dumps(own)  # now: LiteLLM edits the messages that it is given
        elif provider in OPENAI_WIRE:
            self._unknown = {
                name: value
                for name, value in call.body.items()
                if (name not in call.endpoint.parameters or name in _BODY_ONLY) and name not in _OURS
            }

    def __call__(self, path: str, theirs: bytes) -> bytes:
        if not path.endswith(_CHAT_PATH):
            return theirs
        if self._own is not None:
            return self._own
        self.stand_in = STAND_IN_TOOL.encode() in theirs
        return dumps({**self._unknown, **json.loads(theirs)}) if self._unknown else theirs


def _rate_limits(exchange: Exchange) -> dict[str, str]:
    """The provider's rate limits, under names that cannot be taken for the gateway's own."""
    limits = {}
    for name, value in (exchange.headers or {}).items():
        for prefix in _RATE_LIMITS:
            if name.lower().startswith(prefix):
                limits["x-provider-ratelimit-" + name.lower().removeprefix(prefix)] = value
    return limits


class _Answer:
    """What `litellm.completion` opened (upstream.Answer)."""

    def __init__(
        self,
        attempt: Attempt,
        call: Call,
        exchange: Exchange,
        result: Any,
        failures: Failures,
        *,
        relayed: bool,
    ) -> None:
        self._attempt = attempt
        self._call = call
        self._exchange = exchange
        self._result = result
        self._failures = failures
        self._provider = attempt.deployment.provider
        self._relayed = relayed
        self.body = b""

    def read(self) -> None:
        """Take in an answer that is not streamed: the provider's own bytes where they are the caller's wire.

        Raises:
            UpstreamError: it is no chat completion.
        """
        try:
            if self._relayed:
                document = json.loads(self._exchange.body or b"")
                self.body = self._exchange.body or b""
            else:
                document = _plain(self._result.model_dump(exclude_unset=True))
                self.body = dumps(document)
            if not isinstance(document, dict):
                raise Malformed("the answer is no object")
            self._attempt.transcript.take(document)
        except (ValueError, RecursionError, AttributeError) as error:
            raise self._failure(error) from error
        finally:
            self.close()

    def chunks(self) -> Iterator[Chunk]:
        """Read the stream to its end (upstream.Answer)."""
        if self._relayed and self._exchange.answer is not None:
            relay = Relay(
                self._provider,
                self._attempt.transcript,
                usage_asked=self._call.usage_asked,
                failures=self._failures,
            )
            chunks = relay.chunks(iter(self._exchange.answer))
        else:
            chunks = self._translated()
        try:
            yield from chunks
        except ProviderStreamEnded:
            raise self._failures.stopped(self._call.cancellation) or ended_early(self._provider) from None
        except GatewayError:
            raise
        except Exception as error:
            # a stream of LiteLLM's raises as many classes as its opening
            raise self._failure(error) from error

    def _translated(self) -> Iterator[Chunk]:
        """LiteLLM's chunks. Braintrust's generator around them is never iterated: it would end the span too early."""
        transcript = self._attempt.transcript
        for chunk in self._result:
            piece = _plain(chunk.model_dump(exclude_unset=True))
            content = transcript.add(piece)
            if not self._call.usage_asked and piece.pop("usage", None) and not piece.get("choices"):
                continue
            yield Chunk(data_event(piece), content)
        if not transcript.complete or (b"message_stop" not in self._exchange.tail and self._cut()):
            raise ended_early(self._provider)

    def _cut(self) -> bool:
        """Whether an Anthropic stream broke off: LiteLLM makes a finish_reason up for it."""
        return self._exchange.path.endswith("/v1/messages") and b'"stop_reason"' not in self._exchange.tail

    def _failure(self, error: Exception) -> GatewayError:
        if (stopped := self._failures.stopped(self._call.cancellation)) is not None:
            return stopped
        if self._exchange.stream and self._exchange.fault is None:
            if (reported := _error_event(self._exchange.tail)) is not None:
                return self._failures.reported(self._provider, reported)
            return ProviderInvalid(f"{self._provider} sent a stream that cannot be read.", provider=self._provider)
        return self._failures.of(self._provider, self._exchange, self._call.cancellation, error)

    def close(self) -> None:
        """Free the connection (upstream.Answer)."""
        self._call.cancellation.unsubscribe(self._exchange.abort)
        self._exchange.close()


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's answer without the nulls that LiteLLM adds; those that OpenAI's schema requires stay."""
    plain: dict[str, Any] = _without_nulls(document)
    for choice in plain.get("choices") or ():
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return plain


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _error_event(tail: bytes) -> Any:
    """The error in the last piece of a stream, in Anthropic's or OpenAI's shape."""
    for line in reversed(tail.splitlines()):
        if line.startswith(b"data:") and b'"error"' in line:
            try:
                event = json.loads(line[5:])
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("error"):
                return event["error"]
    return None
