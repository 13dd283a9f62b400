"""The jobs of the relay: each calls one verb."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from celery import shared_task

from relay import model_lists
from relay.upstream import aiohttp


@shared_task
def refresh_models() -> None:
    """Ask the accounts for their models whose list is missing or ten minutes old."""
    if model_lists.claim():
        async_to_sync(_refresh_models)()


async def _refresh_models() -> None:
    try:
        await model_lists.refresh()
    finally:
        await aiohttp.close()
