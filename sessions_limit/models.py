"""The relay's keys, the sessions of its clients, and which of those were revoked."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.utils import timezone

LONGEST_USER_AGENT = 200


class ClientKey(models.Model):
    """A key that opens the relay; the key itself is shown once and kept only as a keyed hash.

    Until `previous_until` the key that it replaced opens the relay as well. A limit that is None
    does not hold; costs are in micro-USD, and days, weeks and months those of `time_zone`.
    """

    name = models.CharField(max_length=100)
    owner = models.CharField(max_length=100, blank=True)
    hash = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=8, editable=False, help_text="the key's last characters")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    labels = models.JSONField(default=list, blank=True, help_text="accounts it may use; empty: all")
    previous_hash = models.CharField(max_length=64, blank=True, editable=False, db_index=True)
    previous_until = models.DateTimeField(null=True, blank=True, editable=False)

    # What it may be used for, and from where; docs/clients.md says what each is good for.
    model_patterns = models.JSONField(default=list, blank=True, help_text="patterns; empty: all")
    networks = models.JSONField(default=list, blank=True, help_text="CIDR; empty: from anywhere")
    pinned_account = models.BigIntegerField(null=True, blank=True, help_text="an account's id")
    passthrough = models.BooleanField(default=False)

    # How much.
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    max_in_flight = models.PositiveIntegerField(null=True, blank=True)
    max_sessions = models.IntegerField(null=True, blank=True, help_text="-1: any number")
    tokens_per_day = models.PositiveBigIntegerField(null=True, blank=True)
    tokens_per_week = models.PositiveBigIntegerField(null=True, blank=True)
    tokens_per_month = models.PositiveBigIntegerField(null=True, blank=True)
    cost_per_day = models.PositiveBigIntegerField(null=True, blank=True)
    cost_per_week = models.PositiveBigIntegerField(null=True, blank=True)
    cost_per_month = models.PositiveBigIntegerField(null=True, blank=True)
    time_zone = models.CharField(max_length=64, default="UTC")

    last_used_at = models.DateTimeField(null=True, blank=True)
    last_addresses = models.JSONField(default=list, blank=True, editable=False)

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

    @property
    def overlaps_until(self) -> datetime | None:
        """Until when the secret before the last rotation opens the relay too; None: it does not."""
        if self.previous_until is None or self.revoked_at is not None:
            return None
        end = min(self.previous_until, self.expires_at or self.previous_until)
        return end if end > timezone.now() else None


class ClientSession(models.Model):
    """One life of one conversation of a client, as the web processes told of it.

    `uid` names it everywhere; `client` and `session` are who and what is limited (see identity.py).
    `counts` are the requests that each process has counted, `requests` their sum. While `ended_at`
    is None it lives; `ended` says why it ended: "idle", "too old", "revoked".
    """

    uid = models.CharField(max_length=16, unique=True)
    key = models.ForeignKey(ClientKey, on_delete=models.CASCADE, related_name="sessions")
    client = models.CharField(max_length=96)
    session = models.CharField(max_length=128)
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=LONGEST_USER_AGENT, blank=True)
    account = models.ForeignKey(
        "accounts.Account", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    started_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)
    requests = models.PositiveBigIntegerField(default=0)
    counts = models.JSONField(default=dict, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, db_index=True)
    ended = models.CharField(max_length=16, blank=True)

    class Meta:
        ordering = ("-last_seen_at",)
        indexes: ClassVar = [
            models.Index(fields=("client", "session"), name="session_of_client"),
            models.Index(
                fields=("key", "-last_seen_at"),
                name="living_session_of_key",
                condition=models.Q(ended_at=None),
            ),
        ]

    def __str__(self) -> str:
        return self.uid

    @property
    def name(self) -> str:
        """What the limiter knows it by."""
        return f"{self.client}/{self.session}"


class Revocation(models.Model):
    """A session that is refused until a time; this row is the truth, whatever Redis knows.

    `target` is what was revoked with it: "session", "key:7", "address:203.0.113.5", "all".
    """

    name = models.CharField(max_length=230, unique=True)
    until = models.DateTimeField(db_index=True)
    made_at = models.DateTimeField(default=timezone.now)
    by = models.CharField(max_length=150)
    target = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.name
