"""The relay's clients: their keys, their sessions and the limits of both."""
