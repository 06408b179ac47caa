"""Who may call: one and the same 401 for everybody else, and no provider hears of them."""

import httpx
import pytest

from tests.fakes.provider import FakeProvider
from tests.served.caller import CHAT, body, fault
from tests.served.process import TOKEN, Served
from tests.served.wire import Wire, ask, chat_request

RIGHT = {
    "lower": {"Authorization": f"bearer {TOKEN}"},
    "upper": {"Authorization": f"BEARER {TOKEN}"},
    "mixed, with blanks": {"Authorization": f"bEaReR   {TOKEN}  "},
    "name in another case": {"aUTHORIZATION": f"Bearer {TOKEN}"},
    "x-api-key": {"x-api-key": TOKEN},
    "api-key": {"api-key": TOKEN},
    "bearer before x-api-key": {"Authorization": f"Bearer {TOKEN}", "x-api-key": "wrong"},
    "another scheme beside x-api-key": {"Authorization": "Basic eA==", "x-api-key": TOKEN},
}
WRONG = {
    "nothing": {},
    "scheme alone": {"Authorization": "Bearer"},
    "scheme and a blank": {"Authorization": "Bearer "},
    "scheme and blanks": {"Authorization": "Bearer   "},
    "no scheme": {"Authorization": TOKEN},
    "another scheme": {"Authorization": f"Basic {TOKEN}"},
    "another token": {"Authorization": "Bearer wrong"},
    "a longer token": {"Authorization": f"Bearer {TOKEN}x"},
    "a token with more before it": {"Authorization": f"Bearer x{TOKEN}"},
    "a shorter token": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "two tokens": {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
    "another case": {"Authorization": f"Bearer {TOKEN.upper()}"},
    "a comma": {"Authorization": "Bearer ,"},
    "null": {"Authorization": "Bearer null"},
    "undefined": {"Authorization": "Bearer undefined"},
    "empty": {"Authorization": ""},
    "wrong bearer beside the right x-api-key": {"Authorization": "Bearer wrong", "x-api-key": TOKEN},
    "empty x-api-key": {"x-api-key": ""},
    "in the query": {"Referer": f"http://x/?key={TOKEN}"},
}


@pytest.mark.parametrize("headers", RIGHT.values(), ids=RIGHT)
def test_a_known_token_is_let_in(gateway: Served, model: str, headers: dict[str, str]) -> None:
    status, answered = ask(gateway, body(f"openai/{model}"), headers)
    assert status == 200, answered


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_all_others_get_the_same_401(
    gateway: Served, provider: FakeProvider, model: str, headers: dict[str, str]
) -> None:
    status, refused = ask(gateway, body(f"openai/{model}"), headers)
    _, unknown = ask(gateway, body(f"openai/{model}"), {"Authorization": "Bearer unknown"})
    assert status == 401
    failure = refused["error"]
    assert (failure["type"], failure["code"], failure["param"]) == ("authentication_error", "invalid_api_key", None)
    assert failure == {**unknown["error"], "request_id": failure["request_id"]}
    assert TOKEN not in failure["message"]
    assert provider.requests(model) == []


@pytest.mark.parametrize("sent", ["caf\xe9".encode("latin-1"), b"\xff\xfe", "“tok”".encode(), "tök".encode()])
def test_bytes_beyond_ascii_are_a_wrong_token(gateway: Served, provider: FakeProvider, model: str, sent: bytes) -> None:
    with Wire(gateway) as wire:
        wire.send(chat_request(body(f"openai/{model}")).replace(TOKEN.encode(), sent, 1))
        status, answered = wire.read_answer()
    assert status == 401
    assert b"invalid_api_key" in answered
    assert provider.requests(model) == []


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/chat/completions", f"{CHAT}/", "/models"])
def test_nothing_but_health_is_open(gateway: Served, path: str) -> None:
    refused = httpx.request("GET" if "models" in path else "POST", f"{gateway.url}{path}", trust_env=False)
    assert refused.status_code == 401
    fault(refused)


def test_blank_entries_of_the_token_list_are_no_tokens(impatient: Served, model: str) -> None:
    for token in (TOKEN, "second-token"):
        assert ask(impatient, body(f"openai/{model}"), {"Authorization": f"Bearer {token}"})[0] == 200
    for token in ("", " ", ",", f"{TOKEN},", f"{TOKEN},, second-token", " second-token ,"):
        assert ask(impatient, body(f"openai/{model}"), {"Authorization": f"Bearer {token}"})[0] == 401, token
