"""Anthropic's Messages wire: what it asks as a chat completion, a chat's answer told in it, and its record."""

from gateway.core.messages.asked import BEYOND, to_chat
from gateway.core.messages.record import MessagesTranscript
from gateway.core.messages.told import FromChat
from gateway.core.messages.tools import original_names

__all__ = ["BEYOND", "FromChat", "MessagesTranscript", "original_names", "to_chat"]
