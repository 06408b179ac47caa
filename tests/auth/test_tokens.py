"""Static tokens: a fixed list, each a caller of its own."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.tokens import StaticTokens
from gateway.core.calls import Caller
from gateway.core.rights import ADMIN, ALL, CALL
from gateway.secret import Secret

ONE, TWO = "sk-first-token", "sk-second-token"
TOKENS = StaticTokens([Secret(ONE), Secret(TWO)])


def name_of(token: str) -> str:
    return f"tok_{hashlib.sha256(token.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize("token", [ONE, TWO])
def test_a_known_token_is_a_caller_and_a_tenant_by_its_hash(token: str) -> None:
    assert TOKENS.verify(token.encode()) == Caller(name_of(token), name_of(token))


def test_an_admins_token_manages_and_calls_nothing() -> None:
    caller = StaticTokens([Secret(ONE)], admin=True).verify(ONE.encode())
    assert caller is not None
    assert caller.id == caller.tenant == name_of(ONE).replace("tok_", "adm_")
    assert (caller.rights.allows(ADMIN), caller.rights.allows(CALL)) == (True, False)
    assert caller.grants == ALL


def test_a_callers_token_calls_everything_and_manages_nothing() -> None:
    caller = TOKENS.verify(ONE.encode())
    assert caller is not None
    assert (caller.rights.allows(ADMIN), caller.rights.allows(CALL)) == (False, True)
    assert caller.rights.allows_model("any/model")
    assert caller.rights.allows_parent("project_name:any")
    assert caller.grants == caller.rights


def test_two_tokens_are_two_callers() -> None:
    assert TOKENS.verify(ONE.encode()) != TOKENS.verify(TWO.encode())


@pytest.mark.parametrize(
    "credential",
    [b"", b"sk-first-toke", b"sk-first-token ", b"SK-FIRST-TOKEN", b"sk-first-token\0", b"\xff", b"x" * 100_000],
)
def test_anything_else_is_nobody(credential: bytes) -> None:
    assert TOKENS.verify(credential) is None


def test_with_no_tokens_nobody_is_known() -> None:
    assert StaticTokens([]).verify(b"") is None


def test_a_token_shows_nowhere() -> None:
    assert ONE not in repr(TOKENS.__dict__)
    assert ONE not in repr(TOKENS.verify(ONE.encode()))


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_no_bytes_are_known_by_accident(credential: bytes) -> None:
    assert (TOKENS.verify(credential) is not None) == (credential in (ONE.encode(), TWO.encode()))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60))
def test_every_token_that_can_be_configured_is_known(token: str) -> None:
    """The first 20 characters alone have once been a cache's key elsewhere; here all of them count."""
    known = StaticTokens([Secret(token)])
    assert known.verify(token.encode()) is not None
    assert known.verify((token + "x").encode()) is None
    assert known.verify(token[:-1].encode()) is None
