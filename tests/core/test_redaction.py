"""What a record may keep: no credential, and of media a digest."""

from __future__ import annotations

import base64
import hashlib
import json
import sysconfig
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.redaction import REDACTED, Redactor, digest

BODY = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
# Joined here, so that no scanner takes this file for a leak.
CREDENTIALS = {
    "openai": "sk-" + BODY,
    "openai project": "sk-proj-" + BODY + "_-" + BODY,
    "anthropic": "sk-ant-api03-" + BODY,
    "openrouter": "sk-or-v1-" + "0123456789abcdef" * 4,
    "this gateway": "sk-local-" + "0123456789abcdef" * 3,
    "stripe": "rk_live_" + BODY,
    "groq": "gsk_" + BODY,
    "xai": "xai-" + BODY,
    "hugging face": "hf_" + BODY,
    "replicate": "r8_" + BODY,
    "perplexity": "pplx-" + BODY,
    "fireworks": "fw_" + BODY,
    "cerebras": "csk-" + BODY,
    "nvidia": "nvapi-" + BODY,
    "braintrust": "bt-st-" + BODY,
    "gitlab": "glpat-" + BODY[:20],
    "github": "ghp_" + BODY[:36],
    "github fine-grained": "github_pat_" + BODY,
    "google": "AIza" + BODY[:35],
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "aws session": "ASIA" + "ABCDEFGHIJKLMN12",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + BODY,
}
FRAMES = ["{}", "key={}", "Incorrect API key provided: {}.", '{{"k":"{}"}}', "({})", "x\n{}\ny", "a,{},b", "'{}'"]
#: Long texts with no dash, few and many: there is a way of its own past each.
FRAMES += [f"{words * 200}{{}}{words}" for words in (" plain words ", " words, of which one is well-known ", " a-b_c ")]


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_what_looks_like_a_credential_goes(kind: str) -> None:
    for frame in FRAMES:
        said = Redactor().text(frame.format(CREDENTIALS[kind]))
        assert said == frame.format(REDACTED), frame


@pytest.mark.parametrize("before", ["密钥是", "\\n", "\\t"])
def test_a_credential_goes_also_where_no_blank_stands_before_it(before: str) -> None:
    """Chinese has no blanks between words; arguments of tools are JSON, in which a line's end is `\\n`."""
    kept = [kind for kind, credential in CREDENTIALS.items() if credential in Redactor().text(before + credential)]
    assert kept == []


@pytest.mark.parametrize("word", ["Bearer", "bearer"])
def test_the_credential_behind_bearer_goes_whatever_its_shape(word: str) -> None:
    assert Redactor().text(f"Authorization: {word} 0123.abcd~/+=") == f"Authorization: {word} {REDACTED}"


def test_several_credentials_in_one_text_all_go() -> None:
    text = " and ".join(CREDENTIALS.values())
    assert Redactor().text(text) == " and ".join([REDACTED] * len(CREDENTIALS))


OWN = "sk-gw-0a1b2c3d4e5f-" + "aB3" * 17


@pytest.mark.parametrize(
    "around", ["x{}", "risk-and-{}", "{}x", "_{}_", "9{}", "a_sk-{}", "pk-{}", "{0}{0}", '"{}"', "ä{}"]
)
def test_a_virtual_key_goes_whatever_it_is_glued_to(around: str) -> None:
    text = around.format(OWN)
    cleaned = Redactor().text(text)
    assert OWN[6:] not in cleaned
    assert OWN[20:] not in cleaned
    assert REDACTED in cleaned
    assert not Redactor().is_clean(orjson.dumps({"a": text}))


# The gateway's own.


def test_a_known_secret_goes_wherever_it_stands() -> None:
    assert Redactor(["hunter2-plain"]).text("xhunter2-plainx") == f"x{REDACTED}x"


def test_of_two_secrets_the_longer_one_goes_first() -> None:
    assert Redactor(["secret", "secret-longer"]).text("secret-longer") == REDACTED


def test_a_very_short_secret_blanks_out_no_words() -> None:
    assert Redactor(["a", "cat"]).text("a cat") == "a cat"


def test_a_secret_is_text_and_no_pattern() -> None:
    assert Redactor(["a.b(c*d"]).text("a.b(c*d axb(cd") == f"{REDACTED} axb(cd"


# What must stay.


@pytest.mark.parametrize(
    "text",
    [
        "Use sk-learn-pipelines, risk-assessment-2024-q3 and task-force-1234567890.",
        "the desk-number-123456789012 and mask_rcnn_resnet50_fpn_v2",
        "Send Bearer authentication in the header; the bearer certificates are separate.",
        "ask-me-anything-2024-edition",
        "A bearer of good news",
        "https://example.com/risk-management-plan-2024-01-01",
        "AIzawa, AKIA and eyJ are not keys",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "550e8400-e29b-41d4-a716-446655440000",
        "x = sk_learn if hf_hub else None",
        "data: one\ndata: two",
        "",
    ],
)
def test_ordinary_prose_is_unharmed(text: str) -> None:
    assert Redactor(["hunter2-plain"]).value(text) == text


def test_ordinary_code_is_unharmed() -> None:
    """A good part of Python's own library: half a million lines of other people's code."""
    library = Path(sysconfig.get_path("stdlib"))
    redactor, seen = Redactor(), 0
    for file in sorted(library.glob("[a-m]*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if redactor.text(text) != text:
            harmed = [line for line in text.splitlines() if redactor.text(line) != line]
            raise AssertionError(f"{file.name}: {harmed[:3]}")
        seen += text.count("\n")
    assert seen > 20_000


def test_a_megabyte_takes_no_time_worth_mentioning() -> None:
    redactor = Redactor([CREDENTIALS["openai"]])
    text = "The quick brown fox asks: is sk-learn a library? " * 20_000
    began_s = time.perf_counter()
    assert redactor.text(text) == text
    assert time.perf_counter() - began_s < 1.0


# Media.


def data_url(media: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(media).decode()}"


def described(media: bytes, kind: str) -> str:
    return f"[{kind}, {len(media)} bytes, sha256 {hashlib.sha256(media).hexdigest()}]"


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_a_data_url_becomes_type_size_and_digest(media: bytes) -> None:
    assert digest(data_url(media)) == described(media, "image/png")


def test_parameters_of_a_data_url_do_not_hide_it() -> None:
    assert digest("data:audio/wav;rate=8000;base64,QUJD") == described(b"ABC", "audio/wav")
    assert digest("data:;base64,QUJD") == described(b"ABC", "text/plain")


@given(st.binary(min_size=2100, max_size=2200))
@settings(deadline=None, max_examples=50)
def test_long_bare_base64_becomes_a_digest_in_either_alphabet(media: bytes) -> None:
    assert digest(base64.b64encode(media).decode()) == described(media, "base64")
    assert digest(base64.urlsafe_b64encode(media).decode()) == described(media, "base64")


def test_url_safe_base64_is_decoded_also_where_it_has_underscores_only() -> None:
    media = b"\xff" * 3000
    encoded = base64.urlsafe_b64encode(media).decode()
    assert "-" not in encoded
    assert digest(encoded) == described(media, "base64")


@pytest.mark.parametrize("text", ["", "hello", "a" * 2047, "a b" * 2000, "data:text/plain,hello", "data:x"])
def test_what_is_no_media_is_kept(text: str) -> None:
    assert digest(text) is None


def test_media_that_cannot_be_decoded_is_described_all_the_same() -> None:
    got = digest("data:image/png;base64,A")
    assert got is not None
    assert "not decodable" in got


# Values.


def test_a_value_is_cleaned_at_every_depth_keys_included() -> None:
    key = CREDENTIALS["openai"]
    value = {key: [{"a": (key, 1, None, True, 1.5)}, data_url(b"x")]}
    assert Redactor().value(value) == {
        REDACTED: [{"a": [REDACTED, 1, None, True, 1.5]}, described(b"x", "image/png")],
    }


def test_the_value_that_was_given_is_left_as_it_was() -> None:
    given_value = {"a": [CREDENTIALS["openai"]]}
    before = json.dumps(given_value)
    Redactor().value(given_value)
    assert json.dumps(given_value) == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
@settings(deadline=None, max_examples=50)
def test_what_has_nothing_to_hide_is_equal_to_its_copy(value: Any) -> None:
    assert Redactor().value(value) == value


@given(st.text(max_size=30), st.sampled_from(sorted(CREDENTIALS.values())), st.text(max_size=30))
@settings(deadline=None)
def test_a_known_secret_never_survives(before: str, secret: str, after: str) -> None:
    assert secret not in Redactor([secret]).text(before + secret + after)


# What is told from the bytes of a record alone.

KNOWN = ("gw-secret-with-no-shape", 'quo"ted\\secret', "schlüssel-geheim")
PARTS = (
    *(*CREDENTIALS.values(), "Bearer " + BODY, "data:image/png;base64,aGVsbG8=", "QUJD" * 600, *KNOWN),
    *("task", "risk-free", "a word", "\N{SNOWMAN}", '"', "\\"),
)
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=3).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            texts | st.sampled_from(["type", "data", "audio", "input_audio", "media_type"]), inner, max_size=3
        )
        | st.fixed_dictionaries({"type": st.just("base64"), "data": texts})
    ),
    max_leaves=8,
)


@given(values)
@settings(max_examples=2000, deadline=None)
def test_what_is_called_clean_is_what_would_not_be_changed(value: Any) -> None:
    redactor = Redactor(KNOWN)
    if redactor.is_clean(orjson.dumps(value)):
        assert redactor.value(value) == value


@pytest.mark.parametrize("part", PARTS)
def test_ordinary_words_are_clean_and_credentials_are_not(part: str) -> None:
    redactor = Redactor(KNOWN)
    changed = redactor.value({"a": [part]}) != {"a": [part]}
    assert redactor.is_clean(orjson.dumps({"a": [part]})) is (not changed and part != "risk-free")


def test_what_is_learnt_later_is_taken_out_and_nothing_is_forgotten() -> None:
    redactor = Redactor(["first-secret"])
    assert redactor.text("sec-x first-secret") == "sec-x [redacted]"
    redactor.learn(["sec-xy", "first-secret-and-more"])
    assert redactor.text("sec-xy first-secret first-secret-and-more") == "[redacted] [redacted] [redacted]"
    assert not redactor.is_clean(b'{"a":"sec-xy"}')
    redactor.learn([])
    assert redactor.text("first-secret") == "[redacted]"
