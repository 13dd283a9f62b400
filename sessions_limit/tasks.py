"""The jobs of clients."""

from __future__ import annotations

from celery import shared_task
from django.contrib.sessions.backends.db import SessionStore

from sessions_limit import expiry, nearing, revoking, sightings, use


@shared_task
def drain_sightings() -> None:
    """Write what the web processes told of sessions, and end what was revoked meanwhile."""
    sightings.drain()
    revoking.catch_up()


@shared_task
def note_key_use() -> int:
    """Write when and from where each key was last used."""
    use.note_addresses()
    return use.note_last_use()


@shared_task
def watch_budgets() -> None:
    """Announce the budgets that are nearly or wholly used."""
    nearing.watch()


@shared_task
def expire_sessions() -> None:
    """End the sessions that are quiet for too long in the record too."""
    expiry.expire()


@shared_task
def prune_sessions() -> None:
    """Forget sessions and revocations of long ago."""
    expiry.prune()


@shared_task
def clear_sign_ins() -> None:
    """Delete the console's ended sign-ins."""
    SessionStore.clear_expired()
