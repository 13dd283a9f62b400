"""The journal's rows, and what holds just now."""

from __future__ import annotations

from typing import ClassVar

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


class Condition(models.Model):
    """Something that holds for a while: a window near its limit, a pool that is exhausted.

    The row exists while it holds, so that of all processes that notice only one announces it.
    """

    kind = models.CharField(max_length=64)
    subject = models.CharField(max_length=128)
    detail = models.CharField(max_length=128, blank=True)
    since = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("kind", "subject", "detail"), name="one_row_per_condition"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.detail}".strip()
