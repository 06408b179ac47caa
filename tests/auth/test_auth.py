"""Which credential of a request counts, and one answer for everyone who has none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from gateway.auth import Authenticator
from gateway.auth.tokens import StaticTokens
from gateway.core.calls import Caller
from gateway.errors import NotAuthenticated
from gateway.secret import Secret

ONE, TWO = "sk-first-token", "sk-second-token"
FIRST, SECOND = StaticTokens([Secret(ONE)]), StaticTokens([Secret(TWO)])
AUTHENTICATOR = Authenticator([FIRST, SECOND])


def who(*headers: tuple[str, str]) -> str | None:
    """Which of the two tokens a request with these headers is taken for."""
    try:
        caller = AUTHENTICATOR.identify(Headers(list(headers)))
    except NotAuthenticated:
        return None
    return ONE if caller == FIRST.verify(ONE.encode()) else TWO


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {ONE}",
        f"bearer {ONE}",
        f"BEARER {ONE}",
        f"bEaReR {ONE}",
        f"Bearer   {ONE}",
        f"  Bearer {ONE}  ",
        f"Bearer\t{ONE}",
    ],
)
def test_a_bearer_is_read_in_any_case_and_with_any_blanks(value: str) -> None:
    assert who(("Authorization", value)) == ONE


@pytest.mark.parametrize("name", ["x-api-key", "X-API-Key", "api-key", "Api-Key"])
def test_the_other_headers_are_read_in_any_case(name: str) -> None:
    assert who((name, f" {TWO} ")) == TWO


def test_every_verifier_is_asked_in_order() -> None:
    assert who(("x-api-key", ONE)) == ONE
    assert who(("x-api-key", TWO)) == TWO
    late = Authenticator([])
    late.add(FIRST)
    assert late.identify(Headers({"api-key": ONE})) == FIRST.verify(ONE.encode())


def test_what_is_so_now_is_asked_of_those_alone_who_remember() -> None:
    class Forgetful:
        def verify(self, credential: bytes) -> Caller | None:
            return Caller("then", "then") if credential == b"key" else None

        def verify_anew(self, credential: bytes) -> Caller | None:
            return Caller("now", "now") if credential == b"key" else None

    both = Authenticator([FIRST, Forgetful()])
    key, one = Headers({"api-key": "key"}), Headers({"api-key": ONE})
    assert (both.identify(key).id, both.confirm(key).id) == ("then", "now")
    assert both.confirm(one) == both.identify(one) == FIRST.verify(ONE.encode())
    for nobody in (Headers({"api-key": TWO}), Headers()):
        with pytest.raises(NotAuthenticated):
            both.confirm(nobody)


def test_of_two_verifiers_that_know_a_credential_the_first_decides() -> None:
    class Everyone:
        def verify(self, credential: bytes) -> Caller | None:
            return Caller("everyone", "everyone")

    assert Authenticator([FIRST, Everyone()]).identify(Headers({"api-key": ONE})).id.startswith("tok_")
    assert Authenticator([Everyone(), FIRST]).identify(Headers({"api-key": ONE})).id == "everyone"


def test_verifiers_that_live_in_a_process_are_started_and_closed_with_it() -> None:
    class Living:
        said = ""

        def verify(self, credential: bytes) -> Caller | None:
            return None

        def start(self) -> None:
            self.said += "started "

        def close(self) -> None:
            self.said += "closed"

    living = Living()
    both = Authenticator([FIRST, living])
    both.start()
    both.close()
    assert living.said == "started closed"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("Authorization", f"Bearer {ONE}"), ("x-api-key", TWO)], ONE),
        ([("x-api-key", ONE), ("api-key", TWO)], ONE),
        ([("Authorization", "Bearer wrong"), ("x-api-key", ONE)], None),
        ([("x-api-key", "wrong"), ("api-key", ONE)], None),
        ([("Authorization", "Bearer"), ("x-api-key", ONE)], None),
        ([("Authorization", "Bearer two words"), ("x-api-key", ONE)], None),
        ([("x-api-key", ""), ("api-key", ONE)], None),
        ([("Authorization", "Basic dXNlcjpwYXNz"), ("x-api-key", ONE)], ONE),
        ([("Authorization", ""), ("api-key", ONE)], ONE),
        ([("Authorization", ONE), ("api-key", TWO)], TWO),
    ],
)
def test_the_first_credential_that_is_present_decides(headers: list[tuple[str, str]], found: str | None) -> None:
    assert who(*headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", ONE)],
        [("Authorization", f"Basic {ONE}")],
        [("Authorization", f"Token {ONE}")],
        [("Authorization", f"Bearer{ONE}")],
        [("Authorization", f"Bearer {ONE}, Bearer {TWO}")],
        [("Authorization", f"Bearer {ONE}\xe9")],
        [("Authorization", "Bearer \xff\xfe")],
        [("x-api-key", " ")],
        [("x-api-key", f"Bearer {ONE}")],
        [("Cookie", ONE)],
        [("x-gateway-key", ONE)],
    ],
)
def test_everything_else_is_refused_with_one_and_the_same_answer(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(NotAuthenticated) as raised:
        AUTHENTICATOR.identify(Headers(headers))
    with pytest.raises(NotAuthenticated) as absent:
        AUTHENTICATOR.identify(Headers())
    assert (raised.value.message, raised.value.http_status) == (absent.value.message, 401)
    assert ONE not in raised.value.message


latin = st.text(alphabet=st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=60)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["Authorization", "x-api-key", "api-key"]), latin), max_size=3), latin)
def test_no_header_breaks_it(headers: list[tuple[str, str]], token: str) -> None:
    assert who(*headers, ("Authorization", f"Bearer {token}")) in (None, ONE, TWO)


@settings(deadline=None)
@given(st.sampled_from(["'", '"', "\\", ";", "--", "\x7f", "%00", "{{7*7}}", "../"]), latin)
def test_no_text_that_means_something_elsewhere_means_anything_here(special: str, more: str) -> None:
    assert who(("x-api-key", ONE + special + more)) is None or not (special + more).strip()
