"""Upstream accounts: states, credentials, linking, refresh, limits and the pool."""
