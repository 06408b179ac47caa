"""Virtual keys: their spelling, their check and their hash."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.keys import ID_BYTES, SECRET_BYTES, Key, Pepper, has_shape, is_id, new_id
from gateway.secret import Secret

PEPPER = Pepper(Secret("pepper-of-the-tests"))
KEY = PEPPER.key("abcdef012345", b"\x07" * SECRET_BYTES).reveal()

chance = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
short = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)


@given(short, chance)
def test_every_key_that_is_made_is_known_as_made(id_chance: bytes, secret_chance: bytes) -> None:
    id = new_id(id_chance)
    key = PEPPER.key(id, secret_chance).reveal()
    assert re.fullmatch(r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}", key)
    assert is_id(id)
    assert f"-{id}-" in key
    assert PEPPER.made(key.encode())
    assert has_shape(key.encode())


@given(chance, chance)
def test_all_of_the_chance_is_in_the_key(one: bytes, other: bytes) -> None:
    keys = {PEPPER.key("abcdef012345", each).reveal() for each in (one, other)}
    assert len(keys) == len({one, other})


@pytest.mark.parametrize("place", range(len(KEY)))
def test_a_key_with_one_other_character_was_not_made(place: int) -> None:
    other = "0" if KEY[place] != "0" else "1"
    assert not PEPPER.made((KEY[:place] + other + KEY[place + 1 :]).encode())


@pytest.mark.parametrize(
    "credential",
    [
        b"",
        b"sk-gw-",
        KEY[:-1].encode(),
        KEY.encode() + b"0",
        KEY.encode() + b"\0",
        KEY.encode()[:-1] + b"\xff",
        KEY.upper().encode(),
        b"sk-gw-" + b"'" * (len(KEY) - 6),
        b"\0" * len(KEY),
        b"sk-gw-" * 200_000,
    ],
)
def test_nothing_else_was_made(credential: bytes) -> None:
    assert not PEPPER.made(credential)


@given(st.binary(min_size=len(KEY) - 6, max_size=len(KEY) - 6))
def test_no_guess_passes_the_check(guess: bytes) -> None:
    assert not PEPPER.made(b"sk-gw-" + guess)


def test_another_pepper_knows_none_of_its_keys() -> None:
    other = Pepper(Secret("pepper-of-another"))
    assert not other.made(KEY.encode())
    assert other.hashed(KEY.encode()) != PEPPER.hashed(KEY.encode())
    assert other.name != PEPPER.name


def test_neither_hash_nor_name_shows_the_key_or_the_pepper() -> None:
    hashed = PEPPER.hashed(KEY.encode())
    assert re.fullmatch("[0-9a-f]{64}", hashed)
    assert re.fullmatch("[0-9a-f]{8}", PEPPER.name)
    assert "pepper-of-the-tests" not in repr(vars(PEPPER))


@given(chance, chance)
def test_keys_that_differ_at_their_end_alone_have_hashes_of_their_own(one: bytes, other: bytes) -> None:
    hashes = {PEPPER.hashed(b"x" * 60 + each) for each in (one, other)}
    assert len(hashes) == len({one, other})


def test_a_key_is_in_one_state_at_a_time() -> None:
    assert Key("a", "b").state(10) == "active"
    assert Key("a", "b", expires_s=10.5).state(10) == "active"
    assert Key("a", "b", expires_s=10).state(10) == "expired"
    assert Key("a", "b", expires_s=1, disabled=True).state(10) == "disabled"
    assert Key("a", "b", expires_s=1, disabled=True, deleted_s=2).state(10) == "deleted"
    assert Key("a", "b", lost=True).state(10) == "lost"
