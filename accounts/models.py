"""Upstream accounts, their credentials and what is known of their limits."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from accounts import oauth, remembered
from accounts.states import Auth, Kind, Status, Trigger, target
from events import journal
from lib import bus
from lib.sealed import Sealed

POOL = "pool"
LONGEST_REASON = 200


def _choices(values: type[Kind] | type[Status] | type[Auth]) -> list[tuple[str, str]]:
    return [(value.value, value.value.replace("_", " ")) for value in values]


class Account(models.Model):
    """One upstream account: its facts and its state.

    Nobody saves a whole row: the status moves by `apply`, everything else by `update()` of named
    fields, so that a stale copy can never overwrite a rotated token or a newer state.
    """

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=16, choices=_choices(Kind))
    status = models.CharField(max_length=16, choices=_choices(Status), default=Status.ACTIVE)
    reason = models.CharField(max_length=LONGEST_REASON, blank=True)
    status_changed_at = models.DateTimeField(default=timezone.now)
    state_version = models.PositiveIntegerField(default=0)
    limited_until = models.DateTimeField(null=True, blank=True)
    limit_observed_at = models.DateTimeField(null=True, blank=True)
    probe_at = models.DateTimeField(null=True, blank=True)
    cooldown_until = models.DateTimeField(null=True, blank=True)
    cleared_at = models.DateTimeField(null=True, blank=True)

    account_uuid = models.CharField(max_length=64, blank=True)
    organization_uuid = models.CharField(max_length=64, blank=True)
    secret_hash = models.CharField(max_length=64, blank=True)
    email = models.CharField(max_length=254, blank=True)
    organization_name = models.CharField(max_length=254, blank=True)
    plan = models.CharField(max_length=32, blank=True)
    tier = models.CharField(max_length=64, blank=True)
    subscription_status = models.CharField(max_length=32, blank=True)
    scopes = models.CharField(max_length=500, blank=True)

    # How the pool uses it; docs/accounts.md says what each is good for.
    priority = models.PositiveSmallIntegerField(default=50)
    weight = models.PositiveSmallIntegerField(default=1)
    max_in_flight = models.PositiveSmallIntegerField(null=True, blank=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    labels = models.JSONField(default=list, blank=True)
    never_overage = models.BooleanField(default=True)
    leave_at_percent = models.PositiveSmallIntegerField(null=True, blank=True)

    # Of a `compatible` account only: where it is and how it is spoken to.
    preset = models.CharField(max_length=32, blank=True)
    base_url = models.CharField(max_length=500, blank=True)
    auth = models.CharField(max_length=16, blank=True, choices=_choices(Auth))
    forwards_betas = models.BooleanField(default=True)
    model_map = models.JSONField(default=dict, blank=True)

    credential = models.ForeignKey(
        "Credential", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    lease_owner = models.CharField(max_length=64, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    intent_credential = models.UUIDField(null=True, blank=True)
    refresh_failures = models.PositiveIntegerField(default=0)
    refresh_not_before = models.DateTimeField(null=True, blank=True)
    refresh_gone_at = models.DateTimeField(null=True, blank=True)
    grant_started_at = models.DateTimeField(null=True, blank=True)
    grant_ends_at = models.DateTimeField(null=True, blank=True)
    retried_at = models.DateTimeField(null=True, blank=True)

    profile_checked_at = models.DateTimeField(null=True, blank=True)
    profile_not_before = models.DateTimeField(null=True, blank=True)
    profile_failures = models.PositiveIntegerField(default=0)
    usage_checked_at = models.DateTimeField(null=True, blank=True)
    usage_not_before = models.DateTimeField(null=True, blank=True)
    usage_failures = models.PositiveIntegerField(default=0)

    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    pinned = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("account_uuid", "organization_uuid"),
                condition=~Q(account_uuid="") & Q(deleted_at=None),
                name="one_row_per_upstream_account",
            ),
            models.UniqueConstraint(
                fields=("secret_hash",),
                condition=~Q(secret_hash="") & Q(deleted_at=None),
                name="one_row_per_secret",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        """The account's name in the journal."""
        return f"account:{self.pk}"

    def apply(
        self,
        trigger: Trigger,
        *,
        by: str,
        reason: str = "",
        limited_until: datetime | None = None,
        guard: Q | None = None,
        now: datetime | None = None,
        **evidence: Any,
    ) -> bool:
        """Move the state by compare-and-swap and leave a journal row in the same transaction.

        `limited_until` only ever moves later here (RECOVER clears it). `guard` is a further
        condition on the row as it stands in the database. Return False when the move is not in the
        table, or somebody else moved the row first: a lost race, not an error.
        """
        now = now or timezone.now()
        old = Status(self.status)
        until = max(filter(None, (self.limited_until, limited_until)), default=None)
        new = target(old, trigger, until, now)
        if new is None or (trigger is Trigger.LIMIT and old is new and until == self.limited_until):
            return False
        if trigger is Trigger.RECOVER:
            until = None
        if new is Status.RATE_LIMITED and not reason:
            reason = remembered.reason(self.subject, until)
        # What an upstream calls its windows must not keep a limit from being written.
        reason = reason[:LONGEST_REASON]
        row = Account.objects.filter(
            guard or Q(),
            pk=self.pk,
            status=old,
            state_version=self.state_version,
            # Noted without a change of state while an account is out (S15, S16).
            limited_until=self.limited_until,
            deleted_at=None,
        )
        # A further limit or a re-link of a healthy account is a fact, not a change of state.
        changed_at = self.status_changed_at if new is old else now
        with transaction.atomic():
            won = row.update(
                status=new,
                reason=reason,
                limited_until=until,
                status_changed_at=changed_at,
                state_version=self.state_version + 1,
            )
            if not won:
                return False
            journal.record(
                f"account.{trigger}",
                self.subject,
                by=by,
                old=old,
                new=new,
                reason=reason,
                limited_until=until and until.isoformat(),
                **evidence,
            )
            bus.changed(POOL)
        self.status, self.reason, self.limited_until = new, reason, until
        self.status_changed_at, self.state_version = changed_at, self.state_version + 1
        return True


class Credential(models.Model):
    """One generation of an account's secret; rows are only added.

    A grant is one login; a refresh adds the next generation of the same grant.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="credentials")
    grant = models.PositiveIntegerField()
    generation = models.PositiveIntegerField()
    access_token = Sealed("credential.access_token")
    refresh_token = Sealed("credential.refresh_token", null=True)
    expires_at = models.DateTimeField(null=True)
    obtained_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("account", "grant", "generation"), name="one_row_per_generation"
            )
        ]

    def __str__(self) -> str:
        return f"grant {self.grant}, generation {self.generation}"


class Egress(models.Model):
    """The proxy through which one account's requests go; its address may hold a password."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="egress")
    url = Sealed("egress.url")

    def __str__(self) -> str:
        return f"egress of account {self.account_id}"


class LimitWindow(models.Model):
    """The last thing an answer said about one of an account's limit windows.

    `utilization` is a fraction (1.0 = spent). `limit` and `remaining` are counts, of the windows of
    an API key only.
    """

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="windows")
    name = models.CharField(max_length=64)
    status = models.CharField(max_length=32, blank=True)
    utilization = models.FloatField(null=True)
    limit = models.BigIntegerField(null=True)
    remaining = models.BigIntegerField(null=True)
    reset_at = models.DateTimeField(null=True)
    observed_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=("account", "name"), name="one_row_per_window")
        ]

    def __str__(self) -> str:
        return f"{self.name} of account {self.account_id}"


class WindowSample(models.Model):
    """How far a limit window was used in one step of time (`at` is its beginning)."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="samples")
    name = models.CharField(max_length=64)
    at = models.DateTimeField(db_index=True)
    status = models.CharField(max_length=32, blank=True)
    utilization = models.FloatField()
    reset_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=("account", "name", "at"), name="one_sample_per_step")
        ]

    def __str__(self) -> str:
        return f"{self.name} of account {self.account_id} at {self.at:%Y-%m-%d %H:%M}"


class LinkFlow(models.Model):
    """A login that was begun in the console and not yet confirmed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    state = Sealed("link_flow.state")
    verifier = Sealed("link_flow.verifier")
    session = models.CharField(max_length=64, help_text="keyed hash of the operator's session")
    by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    answer = Sealed("link_flow.answer", null=True)
    profile = models.JSONField(null=True)
    confirmed_at = models.DateTimeField(null=True)
    account = models.ForeignKey(Account, null=True, on_delete=models.SET_NULL, related_name="+")

    def __str__(self) -> str:
        return f"link flow of {self.by}"

    @property
    def url(self) -> str:
        """The address where the owner of the account approves the login."""
        return oauth.authorize_url(self.state, self.verifier)
