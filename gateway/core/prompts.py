"""What a call asks for, read from its body before any provider counts: for prices, limits and routing alike."""

from __future__ import annotations

from gateway.core.calls import Call
from gateway.core.usage import MOST_TOKENS, estimated

#: Fields that a model reads as its prompt besides what the operation's row names as asked.
_READ_TOO = ("system", "instructions", "tools", "functions", "response_format", "text")
#: What callers say their answer may have at most: OpenAI's two names for chats and one for responses; Anthropic's.
_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def prompt_tokens(call: Call) -> int:
    """Guess the tokens that go in: of what was asked, of tools and instructions, of the conversation that is kept here.

    Media count nothing, as in `usage.estimated`; what a provider keeps of a conversation is not seen.
    """
    names = dict.fromkeys((call.endpoint.asked, *_READ_TOO))
    texts = [*(call.body.get(name) for name in names), list(call.history)]
    return min(estimated(texts, None).prompt, MOST_TOKENS)


def stated_maximum(call: Call) -> int | None:
    """The most tokens that one answer may have, as the caller says; None where it does not."""
    said = [call.body.get(name) for name in _MAXIMA]
    found = [number for number in said if type(number) is int and number > 0]
    return min(max(found), MOST_TOKENS) if found else None
