"""The ways in: the first operator's one-time link, and the tokens of the admin API."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone


class SetupLink(models.Model):
    """The set-up link now in force; there is at most one row, and using the link deletes it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    hash = models.CharField(max_length=64, editable=False)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"set-up link until {self.expires_at:%Y-%m-%d %H:%M} UTC"


class AdminToken(models.Model):
    """A token for the admin API; the token itself is shown once and kept only as a keyed hash."""

    name = models.CharField(max_length=100)
    hash = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=8, editable=False, help_text="the token's last characters")
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to the minute")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    def state(self, now: datetime | None = None) -> str:
        """Say what the token is good for at `now`: "active", "revoked" or "expired"."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= (now or timezone.now()):
            return "expired"
        return "active"
