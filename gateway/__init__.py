"""An LLM gateway that traces every call."""
