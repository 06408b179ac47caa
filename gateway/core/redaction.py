"""What a record may keep: no credential, and of media a digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

REDACTED = "[redacted]"
TOO_DEEP = "[nested too deep]"
MAX_DEPTH = 100

#: Texts shorter than this are kept even where they look like base64: ids, hashes and signatures do.
_LONG_BASE64 = 2048

#: Characters of base64 that are decoded at once; a multiple of four.
_PIECE = 1 << 20
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.ASCII)
#: Also end to end: the pieces of a streamed sound are padded one by one.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]++={0,2}+)++", re.ASCII)
#: Objects whose `data` is base64 however short it is: OpenAI's sounds, asked and answered.
_SOUNDS = frozenset({"input_audio", "audio"})

_WORD = r"[A-Za-z0-9_-]"
#: Shapes of credentials as providers, Braintrust, clouds and this gateway issue them: how each begins, what it is made
#: of, how much of that there must be. A prompt may have megabytes and be made to hurt: a literal beginning is found at
#: memory speed, and a run is taken whole and at once (the possessive `*+`), so that no text is looked at twice.
_SHAPES = tuple(
    (beginning, re.compile(rf"({re.escape(beginning)})({made_of}*+)", re.ASCII), least)
    for beginning, made_of, least in (
        *(
            (kind + dash, _WORD, 12)
            for kind in ("sk", "pk", "rk", "gsk", "xai", "hf", "r8", "pplx", "fw", "csk", "nvapi", "bt-st", "glpat")
            for dash in "-_"
        ),
        *((kind, _WORD, 12) for kind in ("ghp_", "gho_", "ghs_", "github_pat_")),
        ("AIza", _WORD, 30),
        *((kind, r"[A-Z0-9]", 16) for kind in ("AKIA", "ASIA")),
        ("eyJ", r"[A-Za-z0-9_.-]", 32),
        *((word, r"[A-Za-z0-9._~+/=-]", 8) for word in ("Bearer ", "bearer ")),
    )
)

#: A virtual key of this gateway (core/keys.py), which is none of a text's words whatever stands around it.
_OWN_KEY = re.compile(r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}", re.ASCII)

#: Nothing shorter can hold one of them.
_SHORTEST = min(len(beginning) + least for beginning, _, least in _SHAPES)
_DASHES = "-_"
_UNDASHED = tuple(shape for shape in _SHAPES if shape[0][-1] not in _DASHES)
#: A dash that ends a beginning. Most beginnings end so, and to look at a text's few dashes is the fastest way past it.
_BEGINNINGS = {
    dash: re.compile(rf"{dash}(?:{'|'.join(f'(?<={re.escape(b)})' for b, _, _ in _SHAPES if b[-1] == dash)})")
    for dash in _DASHES
}
#: What begins a credential, and what media never come without, in the JSON of a record.
_SUSPECTS = (*(beginning.encode() for beginning, _, _ in _SHAPES), b"base64", b'audio"')
#: In a text with more dashes than one in so many characters, looking at each of them is slower than at each beginning.
_DASHES_APART = 32

#: The same, in the JSON of a record: a dash behind the two letters that end a beginning, or a capital that few words
#: have. One look of a third of the time of a look for each suspect, but where a long text is made of such letters.
_DASHED = [beginning.encode() for beginning, _, _ in _SHAPES if beginning[-1] in _DASHES]
_SUSPECT = re.compile(
    b"[-_AJ](?:(?<=(?:%b)[-_])(?:%b)|(?<=A)(?=Iza|KIA|SIA)|(?<=eyJ))"
    % (
        b"|".join(sorted({re.escape(beginning[-3:-1]) for beginning in _DASHED})),
        b"|".join(b"(?<=%b)" % re.escape(beginning) for beginning in _DASHED),
    )
)
_SUSPECT_BYTES = 16 << 10


class Redactor:
    """Cleans what is about to be recorded or shown.

    Args:
        secrets: the gateway's own credentials; each is taken out wherever it stands, whatever its shape.
        rest: called between the steps of what takes long.
    """

    def __init__(self, secrets: Sequence[str] = (), rest: Callable[[], None] = lambda: None) -> None:
        self._rest = rest
        self._known: list[str] = []
        self.learn(secrets)

    def learn(self, secrets: Sequence[str]) -> None:
        """Take these out too, from now on; none is ever forgotten, since calls under way may still speak of it."""
        # a very short "secret" would blank out ordinary words
        known = sorted({*self._known, *(secret for secret in secrets if len(secret) >= 6)}, key=len, reverse=True)
        #: No shorter text can hold any: most texts of a record are names and words.
        self._least = min(_SHORTEST, len(known[-1]) if known else _SHORTEST)
        self._suspects = _fewest(
            [*(json.dumps(secret, ensure_ascii=False)[1:-1].encode() for secret in known), *_SUSPECTS]
        )
        self._others = tuple(one for one in self._suspects if _SUSPECT.search(one) is None)
        self._known = known

    def is_clean(self, record: bytes) -> bool:
        """Tell whether `value` would leave a record as it is, from its JSON (compact, in UTF-8).

        Most records are, and to look through the bytes of one is much quicker than to walk it. Where this is False the
        record may still be clean. How deep it is nested is not looked at.
        """
        suspects = self._suspects
        if len(record) <= _SUSPECT_BYTES:
            if _SUSPECT.search(record) is not None:
                return False
            suspects = self._others
        for suspect in suspects:  # a loop: this runs seven times a call, and `any` costs twice as much
            if suspect in record:
                return False
        # base64 has no spaces, and of a long text without any the beginning tells
        return len(record) < _LONG_BASE64 or not any(
            len(text) >= _LONG_BASE64 and b" " not in text[:_LONG_BASE64] for text in record.split(b'"')
        )

    def text(self, text: str) -> str:
        """Return `text` without anything that is or looks like a credential."""
        if len(text) < self._least:
            return text
        for secret in self._known:
            text = text.replace(secret, REDACTED)
        if len(text) < _SHORTEST:
            return text
        for beginning, shape, least in _SHAPES if _may_begin_dashed(text) else _UNDASHED:
            if beginning in text:
                text = shape.sub(partial(_blotted, least=least), text)
        return text

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of a JSON value without credentials, its base64 media replaced by digests.

        What is nested deeper than `MAX_DEPTH` (a provider may send it) is left out.
        """
        if isinstance(value, str):
            return digest(value, self._rest) or self.text(value)
        if depth > MAX_DEPTH:
            return TOO_DEEP
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, dict | Mapping):  # the plain one first: it is told at once
            if value.get("type") == "base64":  # Anthropic's media, asked and answered
                value = _without_media(value, self._rest)
            return {
                self.text(str(key)): self.value(_without_sound(item, self._rest) if key in _SOUNDS else item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1) for item in value]
        return value


def _fewest(needles: Sequence[bytes]) -> tuple[bytes, ...]:
    """Leave out what is found with another one: whatever holds `gsk-` holds `sk-` too."""
    return tuple(one for one in needles if not any(other in one and other != one for other in needles))


def _may_begin_dashed(text: str) -> bool:
    return any(
        _DASHES_APART * count > len(text) or _BEGINNINGS[dash].search(text) is not None
        for dash in _DASHES
        if (count := text.count(dash))
    )


def _blotted(match: re.Match[str], least: int) -> str:
    """Blot a credential out, unless it is too short, a word (no digit), or the tail of one (`risk-…` has `sk-…`)."""
    beginning, rest = match.groups()
    if beginning in ("AKIA", "ASIA"):  # 16 letters and digits, of which none need be a digit
        return REDACTED if len(rest) == least else match[0]
    before = match.string[max(0, match.start() - 2) : match.start()]
    in_a_word = before[-1:].isascii() and (before[-1:].isalnum() or before[-1:] == "_") and before[:1] != "\\"
    is_word = in_a_word or not any(map(str.isdigit, rest))
    if len(rest) < least or is_word or (beginning == "eyJ" and rest.count(".") < 2):
        return _OWN_KEY.sub(REDACTED, match[0])
    stop = rest[len(rest.rstrip(".")) :]  # the sentence's own
    return (beginning + REDACTED if beginning.endswith(" ") else REDACTED) + stop


def digest(text: str, rest: Callable[[], None] = lambda: None) -> str | None:
    """Describe a text that is media (a base64 data URL, or long bare base64); None for any other text.

    Args:
        text: of any length.
        rest: called after each step of a long one.

    Returns:
        Type, size in bytes and SHA-256 of the decoded media, so that two traces can be compared.
    """
    if text.startswith("data:") and (head := _DATA_URL.match(text)):
        return _described(text, head.group(1) or "text/plain", rest, head.end())
    if len(text) >= _LONG_BASE64 and _BASE64.fullmatch(text):
        return _described(text, "base64", rest)
    return None


def _without_sound(item: Any, rest: Callable[[], None]) -> Any:
    """Put a digest in the place of a sound's `data`; its type is in the `format` beside it, where there is one."""
    if not isinstance(item, Mapping) or not isinstance(sound := item.get("data"), str) or not sound:
        return item
    kind = f"audio/{item['format']}" if isinstance(item.get("format"), str) else "audio"
    named = digest(sound, rest) if sound.startswith("data:") else None
    return {**item, "data": named or _described(sound, kind, rest)}


def _without_media(source: Mapping[str, Any], rest: Callable[[], None]) -> Mapping[str, Any]:
    """Put a digest in the place of the `data` of a base64 source."""
    if not isinstance(data := source.get("data"), str) or not data:
        return source
    kind = source.get("media_type")
    return {**source, "data": _described(data, kind if isinstance(kind, str) else "base64", rest)}


def _described(encoded: str, kind: str, rest: Callable[[], None], start: int = 0) -> str:
    altchars = b"-_" if encoded.find("-", start) >= 0 or encoded.find("_", start) >= 0 else None
    size, digest = 0, hashlib.sha256()
    try:
        for piece in _pieces(encoded, start):
            media = base64.b64decode(piece + "=" * (-len(piece) % 4), altchars=altchars)
            size += len(media)
            digest.update(media)
            if len(piece) == _PIECE:
                rest()
    except (binascii.Error, ValueError):
        media = encoded[start:].encode()
        size, digest = len(media), hashlib.sha256(media)
        kind += ", not decodable"
    return f"[{kind}, {size} bytes, sha256 {digest.hexdigest()}]"


def _pieces(encoded: str, start: int) -> Iterator[str]:
    """Cut base64 where it is padded, and into pieces that are decoded fast: nothing else runs meanwhile."""
    end = len(encoded)
    while start < end:
        padded = encoded.find("=", start)
        stop = padded if padded >= 0 else end
        for place in range(start, stop, _PIECE):
            yield encoded[place : min(place + _PIECE, stop)]
        start = stop
        while start < end and encoded[start] == "=":
            start += 1
