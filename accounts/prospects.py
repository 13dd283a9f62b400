"""The cards of accounts with what is foretold of their windows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from django.utils import timezone

from accounts import cards, outlook
from accounts.cards import Card, Window
from accounts.outlook import AccountOutlook, WindowOutlook


def load(now: datetime | None = None, pk: int | None = None) -> list[Card]:
    """Return `cards.load` with forecasts; as many queries for one account as for a hundred."""
    now = now or timezone.now()
    return foretold(cards.load(now, pk), outlook.accounts(now, pk))


def foretold(shown: Iterable[Card], outlooks: Iterable[AccountOutlook]) -> list[Card]:
    """Return the cards with what the outlooks say of their windows."""
    known = {(one.account, window.name): window for one in outlooks for window in one.windows}
    return [
        replace(
            card,
            windows=tuple(_window(w, known.get((card.account.pk, w.name))) for w in card.windows),
        )
        for card in shown
    ]


def _window(window: Window, told: WindowOutlook | None) -> Window:
    if told is None:
        return window
    return replace(window, rate_per_hour=told.rate_per_hour, runs_out_at=told.runs_out_at)
