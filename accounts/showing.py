"""One account in full and what happened to it, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from accounts import cards
from accounts.models import Account
from events.models import Event

SETTINGS = (
    "priority",
    "weight",
    "max_in_flight",
    "requests_per_minute",
    "tokens_per_minute",
    "labels",
    "never_overage",
    "leave_at_percent",
    "pinned",
)
MOVE = ("old", "new")


def facts(account: Account, now: datetime) -> dict[str, Any]:
    """Return how an account stands and what heals it, its windows and its settings."""
    card = cards.card(account, now)
    return {
        "state": card.state,
        "why": card.why,
        "heals": card.heals,
        "until": iso(card.until),
        "windows": [
            {
                "name": window.name,
                "status": window.status,
                "utilization": window.utilization,
                "limit": window.limit,
                "remaining": window.remaining,
                "reset_at": iso(window.reset_at),
                "observed_at": iso(window.observed_at),
            }
            for window in account.windows.order_by("name")
        ],
        "settings": {name: getattr(account, name) for name in SETTINGS},
    }


def lines(name: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield `facts`, and what stands beside them, as text."""
    until = f" until {told['until']}" if told["until"] else ""
    yield f"{name} (id {told['id']}, {told['kind']}) is {told['state']}{until}."
    yield from filter(None, (told["why"], told["heals"]))
    for label in ("email", "organization", "plan", "expires_at", "grant_ends_at", "last_used_at"):
        yield f"{label:<22}{told[label] or '-'}"
    for window in told["windows"]:
        yield f"window {window['name']:<15}{_window(window)}"
    for setting, value in told["settings"].items():
        yield f"{setting:<22}{_plain(value)}"


def history(account: Account, limit: int) -> list[dict[str, Any]]:
    """Return the latest events of an account, newest first."""
    events = Event.objects.filter(subject=account.subject).order_by("-id")[:limit]
    return [
        {"at": iso(event.at), "kind": event.kind, "by": event.by, "data": event.data}
        for event in events
    ]


def line(event: Mapping[str, Any]) -> str:
    """Say one event with its evidence in a line."""
    data = event["data"]
    moved = f"{data['old']} -> {data['new']}" if data.keys() >= set(MOVE) else ""
    rest = [f"{k}={_plain(v)}" for k, v in data.items() if k not in MOVE and v not in (None, "")]
    words = [event["at"], event["kind"], f"by {event['by']}", moved, " ".join(rest)]
    return "  ".join(filter(None, words))


def iso(moment: datetime | None) -> str | None:
    """Return a time as text, to the second."""
    return moment.isoformat(timespec="seconds") if moment else None


def _window(window: Mapping[str, Any]) -> str:
    used = window["utilization"]
    parts = [
        "" if used is None else f"{used:.1%} used",
        "" if window["remaining"] is None else f"{window['remaining']} of {window['limit']} left",
        window["status"],
        window["reset_at"] and f"resets {window['reset_at']}",
    ]
    return ", ".join(filter(None, parts)) or "not known"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
