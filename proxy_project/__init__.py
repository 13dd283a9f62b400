"""Wiring: settings, ASGI, Celery, addresses and the command `serve`; it decides nothing."""
