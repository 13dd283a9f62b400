"""The journal's rows, what holds just now, and who is told of what."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from lib.sealed import Sealed


class Event(models.Model):
    """One thing that happened; never changed, never deleted by hand.

    `alerted_at` is when the rules were asked about it. A column and not a position in the journal:
    PostgreSQL gives out ids before it commits, so a lower one may appear after a higher one.
    """

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    kind = models.CharField(max_length=64)
    subject = models.CharField(max_length=128, db_index=True)
    by = models.CharField(max_length=150, default="system")
    data = models.JSONField(default=dict)
    alerted_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-id",)
        indexes: ClassVar = [
            models.Index(fields=("id",), condition=Q(alerted_at=None), name="events_to_alert")
        ]

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


class Channel(models.Model):
    """Where alerts are sent; its address may hold a token, and goes with `removed_at`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=16, default="webhook")
    url = Sealed("channel.url", null=True)
    secret = Sealed("channel.secret", null=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_why = models.CharField(max_length=100, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("created_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("name",), condition=Q(removed_at=None), name="one_channel_per_name"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """The channel's name in the journal."""
        return f"channel:{self.pk}"

    @property
    def enabled(self) -> bool:
        """Whether alerts are sent to it."""
        return self.disabled_at is None and self.removed_at is None


class Rule(models.Model):
    """Which events are sent to a channel; `kinds` and `subjects` are lists of patterns."""

    name = models.CharField(max_length=100, unique=True)
    enabled = models.BooleanField(default=True)
    kinds = models.JSONField(default=list)
    subjects = models.JSONField(default=list, blank=True)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="rules")
    throttle_seconds = models.PositiveIntegerField(default=300)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """The rule's name in the journal."""
        return f"rule:{self.pk}"


class State(models.TextChoices):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class Delivery(models.Model):
    """One alert on its way to one channel; its id stays the same over all tries.

    `suppressed` is how many like it were held back before it, as its body says; `held` how many
    were since.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="deliveries")
    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL, related_name="+")
    event = models.ForeignKey(Event, null=True, on_delete=models.SET_NULL, related_name="+")
    kind = models.CharField(max_length=64)
    subject = models.CharField(max_length=128)
    body = models.JSONField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()
    claimed_until = models.DateTimeField(null=True)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=100, blank=True)
    suppressed = models.PositiveIntegerField(default=0)
    held = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at",)
        verbose_name_plural = "deliveries"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("event", "channel"), name="one_delivery_per_event_and_channel"
            )
        ]
        indexes: ClassVar = [
            models.Index(
                fields=("channel", "next_at"), condition=Q(state="pending"), name="deliveries_due"
            ),
            models.Index(fields=("rule", "kind", "subject", "created_at"), name="throttled_by"),
            models.Index(fields=("created_at",), name="deliveries_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"
