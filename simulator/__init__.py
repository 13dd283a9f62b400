"""A stand-in for Anthropic: logins, tokens, models and messages, with faults on demand."""
