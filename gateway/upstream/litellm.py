"""The translate lane: `litellm.completion`, for every provider. The only module that imports LiteLLM.

LiteLLM dials: it knows each provider's address, credentials and quirks. The door below it carries: for providers that
speak the caller's wire the caller's own body goes out and the provider's own bytes come back, since LiteLLM's
rebuilding loses fields both ways; for the others LiteLLM's translation stands.

Nothing of a request is ever a keyword argument but the parameters that the endpoint's row knows: `completion()` has
over 400 names of its own, and some of them choose hosts, keys, files and prices.
"""

from __future__ import annotations

import contextvars
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.endpoints import CHAT, EMBEDDINGS, ENDPOINTS, Endpoint, is_at
from gateway.core.providers import OPENAI_WIRE, SAME_WIRE
from gateway.upstream import exchange as wire
from gateway.upstream import litellmclient, litellmmedia, litellmtrims
from gateway.upstream.answer import LiteLLMAnswer
from gateway.upstream.door import Door
from gateway.upstream.exchange import Exchange, rate_limits
from gateway.upstream.failures import Failures
from gateway.upstream.litellmmedia import MediaAnswer
from gateway.upstream.outgoing import BODY_ONLY, OURS, Outgoing

#: Longer than any call: the exchange bounds each of them.
_NEVER_S = 86_400

#: Where providers live whose address LiteLLM keeps in code.
_PUBLIC_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}

#: What the OpenAI SDK's model of embeddings warns of, once a vector, when LiteLLM dumps one that holds base64.
_BASE64_VECTORS = (
    r"Pydantic serializer warnings:(\n  PydanticSerializationUnexpectedValue\("
    r"Expected `list\[float\]` .*\[field_name='embedding', .*input_type=str\]\))+$"
)

#: Where the OpenAI SDK sends chats to, below the address.
_CHAT_PATH = "/chat/completions"

_STAND_IN = [{"role": "user", "content": "."}]
#: The functions of LiteLLM that are called, under Braintrust's patch.
_FUNCTIONS = frozenset(row.upstream for row in ENDPOINTS if row.upstream)


#: Of these the patch is not shown the answer either: the record has its digest.
_MEDIA = frozenset(("image_generation", "image_edit", "speech", "transcription"))


@dataclass
class _Order:
    """What is really called below Braintrust's patch, and what that returned."""

    arguments: dict[str, Any]
    result: Any = None


_order: contextvars.ContextVar[_Order | None] = contextvars.ContextVar("order", default=None)


class LiteLLM:
    """Reaches any provider through LiteLLM.

    Args:
        failures: makes errors of what went wrong.
        first_byte_s, idle_s: how long a stream may be silent before its head, and between its bytes.
        patch: Braintrust's patch, applied once, to an object with LiteLLM's `completion`.
        silence_s: after how long the silence of a stream that is relayed is told; None for never.
        form_bytes: the most that a form may have, which LiteLLM wants in memory.
    """

    def __init__(
        self,
        failures: Failures,
        *,
        first_byte_s: float,
        idle_s: float,
        patch: Callable[[Any], None],
        silence_s: float | None = None,
        form_bytes: int = 32 << 20,
    ) -> None:
        self._form_bytes = form_bytes
        self._failures = failures
        self._silence_s = silence_s
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._patch = patch

    def load(self) -> None:
        """Import and set LiteLLM up; seconds and 200 MB the first time in a process, nothing after that."""
        load(self._patch)

    def start(self) -> None:
        """Warm an imported LiteLLM: its first call builds tables and starts a thread, so not before the fork."""
        if _module is not None:
            _module.completion(
                model="openai/warm", messages=[{"role": "user", "content": "."}], mock_response=".", api_key="none"
            )

    def close(self) -> None:
        """Close the idle connections to all providers."""
        _door.shut()

    def serves(self, endpoint: Endpoint, _deployment: Deployment) -> bool:
        """Whether LiteLLM has the operation; that a provider of its has none is told by trying."""
        return bool(endpoint.upstream)

    def count(self, deployment: Deployment, text: str) -> int:
        """Count the tokens of a text by OpenAI's tokenizer, which LiteLLM brings along; else a quarter of its bytes."""
        if _module is None:  # where everything is relayed, nobody waits for its import just to count
            return (len(text.encode("utf-8", "replace")) + 3) // 4
        return int(_module.token_counter(model=deployment.name, text=text))

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        """No: LiteLLM waits for the head of a stream (Upstream.opens_in_time)."""
        return False

    def open(self, attempt: Attempt, call: Call) -> LiteLLMAnswer | MediaAnswer:
        """Send the call (Upstream.open).

        Raises:
            InvalidRequest: LiteLLM cannot stream this operation.
            BodyTooLarge: its form has more than LiteLLM may hold in memory.
        """
        litellmmedia.check(call)
        files = litellmmedia.files_of(call, self._form_bytes)
        self.load()
        provider = attempt.deployment.provider
        outgoing = Outgoing(attempt, call)
        remaining_s = max(0.001, call.deadline_s - time.monotonic())
        waits_s = attempt.deployment.waits_s(stream=call.stream)
        exchange = Exchange(
            host=_host(provider, attempt.deployment.api_base),
            stream=call.stream,
            # the watcher ends a call whose time is up, and says so; a read that waits a little longer does not race it
            head_s=min(self._first_byte_s, waits_s, remaining_s + 1) if call.stream else min(waits_s, remaining_s + 1),
            idle_s=min(self._idle_s, remaining_s + 1) if call.stream else min(waits_s, remaining_s + 1),
            rewrite=outgoing,
            passes=_CHAT_PATH if call.endpoint is CHAT and provider in SAME_WIRE else None,
        )
        call.cancellation.subscribe(exchange.abort)
        token = wire.current.set(exchange)
        result, raised = None, None
        try:
            result = self._call(attempt, call, exchange, files)
        except Exception as error:  # noqa: BLE001 - LiteLLM raises classes of dozens of modules, its own bugs too
            raised = error  # the exchange knows better what happened
        finally:
            wire.current.reset(token)
            attempt.provider_headers = rate_limits(exchange)
        relayed = provider in OPENAI_WIRE and is_at(call.endpoint, exchange.path) and not outgoing.stand_in
        # LiteLLM gives None, and raises nothing, where its own second try of a refused request was refused as well
        failed = raised is not None or result is None or (exchange.status or 0) >= 400
        if failed and not (relayed and exchange.answered and not call.cancellation.reason):
            exchange.close()
            call.cancellation.unsubscribe(exchange.abort)
            raise self._failures.of(provider, exchange, call.cancellation, raised) from raised
        if call.pieces:
            media = MediaAnswer(attempt, call, exchange, result, self._failures, relayed=relayed)
            media.read()
            return media
        # a whole answer is relayed even where LiteLLM could not rebuild it: it is paid for, and it is the provider's
        answer = LiteLLMAnswer(
            attempt, call, exchange, result, self._failures, relayed=relayed, silence_s=self._silence_s
        )
        if not call.stream:
            answer.read()
        return answer

    def _call(self, attempt: Attempt, call: Call, exchange: Exchange, files: dict[str, Any]) -> Any:
        function = call.endpoint.upstream
        if not call.endpoint.asked or files:
            return _complete(function, {**self._arguments(attempt, call), **files})
        if call.endpoint is not CHAT and attempt.deployment.provider in SAME_WIRE:
            return _complete(function, self._stand_in(attempt, call))
        try:
            return _complete(function, self._arguments(attempt, call))
        except Exception:
            if attempt.deployment.provider not in SAME_WIRE or exchange.sent or call.cancellation.reason:
                raise
            # LiteLLM refuses the shape of something that it would not even send: the own body goes out, and it is the
            # provider's to judge
            return _complete(function, self._stand_in(attempt, call))

    def _stand_in(self, attempt: Attempt, call: Call) -> dict[str, Any]:
        """Arguments without anything of the caller's, where the caller's own body goes out in any case."""
        given = self._arguments(attempt, call)
        bare = {name: value for name, value in given.items() if name not in call.endpoint.parameters or name in OURS}
        return {**bare, call.endpoint.asked: _STAND_IN if call.endpoint is CHAT else "."}

    def _arguments(self, attempt: Attempt, call: Call) -> dict[str, Any]:
        """The keyword arguments of LiteLLM's function; a parameter gets here by its row alone."""
        deployment = attempt.deployment
        ours = {*OURS, call.endpoint.asked}
        known = {
            name: call.body[name]
            for name in call.endpoint.parameters
            if name not in ours and name not in BODY_ONLY and call.body.get(name) is not None
        }
        if deployment.provider not in OPENAI_WIRE:
            attempt.dropped = self._dropped(attempt, call, known)
        asked = {call.endpoint.asked: call.body.get(call.endpoint.asked) or ""} if call.endpoint.asked else {}
        key = deployment.api_key.reveal() if deployment.api_key else None
        if key is None and deployment.provider in SAME_WIRE:
            key = "none"  # the OpenAI SDK insists on one; servers that need none ignore it
        arguments = {
            **known,
            **asked,
            "model": deployment.name,
            "api_base": deployment.api_base,
            "api_key": key,
            "max_retries": 0,
            "timeout": _NEVER_S,  # the exchange has the real ones; LiteLLM keeps a client for each value of this
        }
        if call.endpoint is CHAT:
            arguments["_skip_mcp_handler"] = True  # a tool's server_url must not start LiteLLM's MCP gateway
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
        if call.endpoint not in (CHAT, EMBEDDINGS):  # which of those that it knows reach whom, LiteLLM does not tell
            return tuple(sorted(name for name in call.body if name not in call.endpoint.parameters))
        supported = _module.get_supported_openai_params(
            model=attempt.deployment.model,
            custom_llm_provider=attempt.deployment.provider,
            request_type="embeddings" if call.endpoint is EMBEDDINGS else "chat_completion",
        )
        asked = {*known, *OURS, call.endpoint.asked}
        lost = [name for name in call.body if name not in asked and call.body[name] is not None]
        if supported is not None:
            lost += [name for name in known if name not in supported and name not in ("top_k", "thinking")]
        return tuple(sorted(lost))


# LiteLLM is one module with one state, so there is one of each of these in a process
_loading = threading.Lock()
_module: Any = None
_traced: Any = None
_door = Door()


def load(patch: Callable[[Any], None]) -> None:
    """Import LiteLLM, put the door under it and apply `patch`; once in a process.

    The patch is applied to an object of ours and not to the module: what it wraps shows it a call without content (its
    span takes any `image_url` or `file_data` that is no data URL for a file name, opens it and keeps what is in it),
    and what LiteLLM calls of its own accord, `responses` for some models, it does not see at all.
    """
    global _module, _traced
    with _loading:
        if _module is None:
            module = _import()
            _install(module)
            _traced = SimpleNamespace(**{name: partial(_ordered, name) for name in _FUNCTIONS})
            patch(_traced)
            _module = module


def _ordered(function: str, **_seen: Any) -> Any:
    order = _order.get()
    assert order is not None
    order.result = getattr(_module, function)(**order.arguments)
    # media would be kept twice, and be written as attachments of the span
    return None if function in _MEDIA else order.result


def _complete(function: str, arguments: dict[str, Any]) -> Any:
    """Call a function of LiteLLM under Braintrust's patch; return LiteLLM's own result, not the patch's wrapper."""
    order = _Order(arguments)
    token = _order.set(order)
    try:
        getattr(_traced, function)(model=arguments["model"], stream=arguments.get("stream", False))
    finally:
        _order.reset(token)
    return order.result


def _import() -> Any:
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads a .env of its own
    # else it fetches these from the net at import, or at a call
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import litellm  # noqa: PLC0415 - seconds and 200 MB, only where a deployment needs it

    return litellm


def hush_base64() -> None:
    """Ignore the warning that vectors are texts, as `encoding_format: base64` asks: the provider's own bytes go back.

    Each has other words, so Python would also keep every one of them for good, to print it once only.
    """
    warnings.filterwarnings("ignore", message=_BASE64_VECTORS, category=UserWarning, module=r"pydantic\.main")


def _install(module: Any) -> None:
    hush_base64()
    # LiteLLM's streams write context variables when they are finalized, for the logs of asynchronous calls: none are
    # made here. Until CPython 3.12 a collection can begin within ContextVar.set, and such a write then frees the very
    # table that is being copied, so that the process dies by SIGSEGV (github.com/python/cpython/issues/148891).
    if "__del__" in vars(module.CustomStreamWrapper):
        del module.CustomStreamWrapper.__del__
    module.sync_transport = _door  # every client of its own that LiteLLM makes from now on
    module.client_session = httpx.Client(
        transport=_door, follow_redirects=False, trust_env=False, timeout=_NEVER_S
    )  # every client that it makes from the OpenAI SDK
    platform.platform()  # the OpenAI SDK wants it for a header: it runs `uname` once, here and not in a call
    litellmclient.install(module.llms.openai.openai, _door)
    litellmtrims.install(module)
    module.in_memory_llm_clients_cache.flush_cache()
    module.module_level_client.client = module.client_session  # made at import
    module.suppress_debug_info = True
    module.telemetry = False
    module.drop_params = True  # what a provider does not know is left out; we name it in a header
    module.disable_streaming_logging = True  # rebuilds every chunk for callbacks that do not exist here
    module.user_url_validation = True
    # what it works out once more after each call for callbacks and headers of its proxy: a third of a call's CPU
    module.utils.update_response_metadata = _nothing
    module.utils.executor = _Nobody()
    module._service_logger.ServiceLogging.service_success_hook = _nothing  # it runs an event loop
    module.disable_hf_tokenizer_download = True  # it would fetch the tokenizers of some models
    # a model may repeat itself; LiteLLM raises after 100 equal chunks
    module.REPEATED_STREAMING_CHUNK_LIMIT = 1 << 62


def _nothing(*_args: Any, **_arguments: Any) -> None:
    """Takes the place of what serves nobody here."""


class _Nobody:
    """Takes the place of the threads that LiteLLM logs successes in."""

    submit = staticmethod(_nothing)


def _host(provider: str, api_base: str | None) -> str | None:
    if api_base is None:
        return _PUBLIC_HOSTS.get(provider)
    address = urlsplit(api_base)
    if address.port is None or (address.scheme, address.port) in (("http", 80), ("https", 443)):
        return _bracketed(address.hostname or "")
    return f"{_bracketed(address.hostname or '')}:{address.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
