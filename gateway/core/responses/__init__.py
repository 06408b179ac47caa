"""OpenAI's Responses wire (API reference, "Responses"): asked as chat, told from chat, and kept as a record."""
