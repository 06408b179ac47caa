"""OpenAI's Responses wire: what it asks as a chat completion, a chat's answer told in it, and its record."""

from gateway.core.responses.asked import continued, items_of, references_of, response_of, to_chat, with_items
from gateway.core.responses.record import ResponsesTranscript
from gateway.core.responses.told import FromChat

__all__ = [
    "FromChat",
    "ResponsesTranscript",
    "continued",
    "items_of",
    "references_of",
    "response_of",
    "to_chat",
    "with_items",
]
