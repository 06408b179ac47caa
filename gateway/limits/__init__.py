"""What a call is held to: reserved before it, settled after it."""
