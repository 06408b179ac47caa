"""What a call asks for, read from its body before any provider counts: for prices, limits and routing alike."""

from __future__ import annotations

import math

from gateway.core.calls import Call
from gateway.core.endpoints import IMAGES, IMAGES_EDITS, IMAGES_VARIATIONS, RERANK, SPEECH
from gateway.core.usage import MOST_TOKENS, Usage, estimated

#: Fields that a model reads as its prompt besides what the operation's row names as asked.
_READ_TOO = ("system", "instructions", "tools", "functions", "response_format", "text")
#: What callers say their answer may have at most: OpenAI's two names for chats and one for responses; Anthropic's.
_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
#: Tokens of sound for a character: 1250 a minute (OpenAI's price list has 12 USD a million, "about 0.015 USD a minute"
#: for `gpt-4o-mini-tts`), in which 150 words are spoken, of six characters each with the blank.
_SOUND_TOKENS = 1250 / 900
#: Of a recording: one for 100 ms (OpenAI's guide to the Realtime API, "Managing costs"), spoken as fast.
_HEARD_TOKENS = 600 / 900
_DRAWN = frozenset(row.name for row in (IMAGES, IMAGES_EDITS, IMAGES_VARIATIONS))


def prompt_tokens(call: Call) -> int:
    """Guess the tokens that go in: of what was asked, of tools and instructions, of the conversation that is kept here.

    Media count nothing, as in `usage.estimated`; what a provider keeps of a conversation is not seen.
    """
    if call.endpoint.asked:
        names = dict.fromkeys((call.endpoint.asked, *_READ_TOO))
        texts = [*(call.body.get(name) for name in names), list(call.history)]
    else:  # no one field is what was asked: documents, and the query that they are ranked by
        texts = [call.endpoint.asked_of(call.body)]
    return min(estimated(texts, None).prompt, MOST_TOKENS)


def stated_maximum(call: Call) -> int | None:
    """The most tokens that one answer may have, as the caller says; None where it does not.

    By the operation's own fields alone: what another wire calls its maximum bounds nothing here.
    """
    said = [call.body.get(name) for name in _MAXIMA if name in call.endpoint.parameters]
    found = [number for number in said if type(number) is int and number > 0]
    return min(max(found), MOST_TOKENS) if found else None


def expected(call: Call, prompt: int, completion: int, tier: str | None = None) -> list[Usage]:
    """Say what a call may be billed for, in each way in which its model may be priced.

    Args:
        call: what was asked.
        prompt: its tokens.
        completion: the tokens of its answers.
        tier: as `Usage.tier`.

    Returns:
        Tokens, those of pictures and of sound as such; and what the body says of other units: characters to speak,
        pictures to make, a query. Recordings have a length that no body tells.
    """
    if call.endpoint is SPEECH:
        text = call.body.get("input")
        characters = len(text) if isinstance(text, str) else 0
        return [spoken(characters), Usage(units={"character_in": characters})]
    if call.endpoint.name in _DRAWN:
        count = call.body.get("n")
        made = {"image_made": count if type(count) is int and count > 0 else 1}
        return [Usage(prompt, completion, image_out=completion, tier=tier), Usage(units=made)]
    tokens = Usage(prompt, completion, tier=tier)
    return [tokens, Usage(units={"query": 1})] if call.endpoint is RERANK else [tokens]


def spoken(characters: int) -> Usage:
    """Guess the tokens of a text and of the sound of it, where nobody tells them."""
    sound = min(math.ceil(characters * _SOUND_TOKENS), MOST_TOKENS)
    return Usage(min((characters + 3) // 4, MOST_TOKENS), sound, audio_out=sound)


def heard(characters: int) -> Usage:
    """Guess the tokens of a recording and of the text of it, where nobody tells them."""
    sound = min(math.ceil(characters * _HEARD_TOKENS), MOST_TOKENS)
    return Usage(sound, min((characters + 3) // 4, MOST_TOKENS), audio_in=sound)
