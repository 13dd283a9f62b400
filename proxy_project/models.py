"""The one-time link that lets the first operator in."""

from __future__ import annotations

from django.db import models


class SetupLink(models.Model):
    """The set-up link now in force; there is at most one row, and using the link deletes it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    hash = models.CharField(max_length=64, editable=False)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"set-up link until {self.expires_at:%Y-%m-%d %H:%M} UTC"
