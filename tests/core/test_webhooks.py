"""How notices are signed."""

from __future__ import annotations

import pytest

from gateway.core.webhooks import signature, signing_key

#: The example of the libraries for the Standard Webhooks specification.
SECRET, ID, AT_S = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
BODY = b'{"test": 2432232314}'


def test_a_signature_is_the_one_of_the_specification() -> None:
    assert signature(signing_key(SECRET), ID, AT_S, BODY) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("secret", "id", "at_s", "body"),
    [
        (SECRET.replace("M", "N", 1), ID, AT_S, BODY),
        (SECRET, ID + "k", AT_S, BODY),
        (SECRET, ID, AT_S + 1, BODY),
        (SECRET, ID, AT_S, BODY + b" "),
    ],
)
def test_everything_that_is_signed_changes_it(secret: str, id: str, at_s: int, body: bytes) -> None:
    assert signature(signing_key(secret), id, at_s, body) != signature(signing_key(SECRET), ID, AT_S, BODY)


def test_a_text_without_the_prefix_is_the_key_itself() -> None:
    assert signing_key("é" * 12) == "é".encode() * 12
    assert signing_key(SECRET) != SECRET.encode()


@pytest.mark.parametrize("secret", ["", "x" * 23, "whsec_", "whsec_!" + "A" * 40, "whsec_" + "A" * 28, "whsec_AAA"])
def test_a_secret_that_can_be_guessed_or_not_be_read_is_none(secret: str) -> None:
    with pytest.raises(ValueError, match=r"is too short|is no Base64") as caught:
        signing_key(secret)
    assert not secret or secret not in str(caught.value)
