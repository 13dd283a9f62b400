"""The journal's rows."""

from __future__ import annotations

from django.db import models


class Event(models.Model):
    """One thing that happened; never changed, never deleted by hand."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    kind = models.CharField(max_length=64)
    subject = models.CharField(max_length=128, db_index=True)
    by = models.CharField(max_length=150, default="system")
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"
