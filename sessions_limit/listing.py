"""What the console says about keys: their state in a word, and settings for their clients."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from sessions_limit.models import ClientKey

TONES = {"active": "active", "revoked": "invalid", "expired": "inactive", "disabled": "inactive"}


@dataclass(frozen=True, slots=True)
class Row:
    """A key as the list shows it; `tone` is one of the badges' names."""

    key: ClientKey
    state: str
    tone: str

    @property
    def is_usable(self) -> bool:
        """Whether the key opens the relay now."""
        return self.state == "active"


@dataclass(frozen=True, slots=True)
class Snippet:
    """Settings to copy."""

    id: str
    title: str
    text: str


def rows(keys: Iterable[ClientKey]) -> list[Row]:
    """Return the keys with their state in a word."""
    return [Row(key, key.state, TONES[key.state]) for key in keys]


def count_usable(now: datetime | None = None) -> int:
    """Return how many keys open the relay at `now`."""
    lives = Q(expires_at=None) | Q(expires_at__gt=now or timezone.now())
    return ClientKey.objects.filter(lives, enabled=True, revoked_at=None).count()


def snippets(base: str, key: str) -> list[Snippet]:
    """Return what points Claude Code at the relay at `base`, for each place it can be set.

    The names are Claude Code's own (protocol.md, section 7).
    """
    values = {"ANTHROPIC_BASE_URL": base, "ANTHROPIC_AUTH_TOKEN": key}
    bash = "\n".join(f"export {name}='{value}'" for name, value in values.items())
    powershell = "\n".join(f"$env:{name} = '{value}'" for name, value in values.items())
    return [
        Snippet("bash", "bash, zsh", f"{bash}\nclaude"),
        Snippet("powershell", "PowerShell", f"{powershell}\nclaude"),
        Snippet("settings", "~/.claude/settings.json", json.dumps({"env": values}, indent=2)),
        Snippet(
            "curl",
            "Check with curl: lists the models, costs no tokens",
            f"curl -sS '{base}/v1/models' \\\n"
            f"  -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01'",
        ),
    ]
