"""The relay's keys."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class ClientKey(models.Model):
    """A key that opens the relay; the key itself is shown once and kept only as a keyed hash."""

    name = models.CharField(max_length=100)
    hash = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=8, editable=False, help_text="the key's last characters")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    labels = models.JSONField(default=list, blank=True, help_text="accounts it may use; empty: all")
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """What the key is good for now: "active", "revoked", "expired" or "disabled"."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return "expired"
        return "active" if self.enabled else "disabled"
