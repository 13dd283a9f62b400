"""One attempt at one upstream, whatever HTTP client makes it."""
