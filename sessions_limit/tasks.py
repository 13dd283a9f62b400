"""The jobs of clients."""

from __future__ import annotations

from celery import shared_task
from django.contrib.sessions.backends.db import SessionStore

from sessions_limit import sightings, use


@shared_task
def drain_sightings() -> None:
    """Write what the web processes told of sessions."""
    sightings.drain()


@shared_task
def note_key_use() -> int:
    """Write when each key was last used."""
    return use.note_last_use()


@shared_task
def expire_sessions() -> None:
    """Delete the console's ended sign-ins; relayed sessions end by their own time in Redis."""
    SessionStore.clear_expired()
