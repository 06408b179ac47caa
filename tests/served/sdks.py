"""The vendors' SDKs, pointed at a served gateway. No proxy of the machine's stands in between."""

from typing import Any

import anthropic
import httpx
import openai

from tests.served.process import TOKEN, Served

TIMEOUT_S = 20


def client_of(gateway: Served, path: str = "/v1", token: str = TOKEN, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=gateway.url + path,
        api_key=token,
        timeout=TIMEOUT_S,
        http_client=httpx.Client(trust_env=False),
        **{"max_retries": 0, **options},
    )


def async_client_of(gateway: Served, token: str = TOKEN, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=token,
        timeout=TIMEOUT_S,
        http_client=httpx.AsyncClient(trust_env=False),
        **{"max_retries": 0, **options},
    )


def claude_of(gateway: Served, token: str = TOKEN, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=gateway.url,
        api_key=token,
        timeout=TIMEOUT_S,
        http_client=anthropic.DefaultHttpxClient(trust_env=False),
        **{"max_retries": 0, **options},
    )


def async_claude_of(gateway: Served, token: str = TOKEN, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=gateway.url,
        api_key=token,
        timeout=TIMEOUT_S,
        http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False),
        **{"max_retries": 0, **options},
    )
