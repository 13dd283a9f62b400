"""The jobs of accounts: each calls one verb."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from celery import shared_task

from accounts import facts, grants, lifecycle, linking, polling, profiles, purge, tokens, watching


@shared_task
def drain_facts() -> None:
    """Write what the data plane learnt."""
    facts.drain()


@shared_task
def prune_samples() -> None:
    """Forget how windows were used weeks ago, and which were near their limit."""
    facts.prune()


@shared_task
def refresh_tokens() -> None:
    """Refresh the tokens that are near their end."""
    async_to_sync(tokens.refresh_due)()


@shared_task
def recover_rate_limited() -> None:
    """Return accounts whose limit has passed."""
    lifecycle.recover_rate_limited()


@shared_task
def deactivate_idle() -> None:
    """Bench accounts that nobody uses."""
    lifecycle.deactivate_idle()


@shared_task
def purge_removed() -> None:
    """Delete what is left of accounts that were removed a month ago."""
    purge.purge_removed()


@shared_task
def poll_usage() -> None:
    """Ask idle accounts for their usage."""
    async_to_sync(polling.poll_usage)()


@shared_task
def check_profiles() -> None:
    """Ask whose login each account is, once a day."""
    async_to_sync(profiles.check_due)()


@shared_task
def announce_grant_ends() -> None:
    """Say which logins end soon."""
    grants.announce_ends()


@shared_task
def shred_link_flows() -> None:
    """Delete logins that nobody confirmed, tokens included."""
    linking.shred_expired()


@shared_task
def watch_pool() -> None:
    """Announce a pool that is exhausted or degraded, and its recovery."""
    watching.watch_pool()
