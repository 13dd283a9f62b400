"""Crypto, snapshots, Redis and HTTP client factories; no models, imports no app."""
