"""Anthropic's Messages wire: to and from chat completions, and the record of an answer in it."""
