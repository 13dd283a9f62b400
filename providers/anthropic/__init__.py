"""How to speak to Anthropic's own API."""
