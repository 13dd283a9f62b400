"""One row per relayed request, and their sums; prompts and answers are never stored."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from usage import latency


class RequestRecord(models.Model):
    """What one relayed request was, where it went, how it ended and what it used.

    `upstream_id` is the upstream's own name for the request that was answered.
    `model` is the one asked for, `answered_by` the one that answered. Token counts are those of the
    official client, None where the answer did not say; `parts` are the samplings of an answer that
    took several. `is_partial`: the answer broke off, so its counts are what was seen of it. `cost`
    is in micro-USD, None where no price is known, by the prices of `price_version`; `saved` is what
    its cache reads would have cost on top as plain input. The buckets are those of `usage.latency`.
    """

    request_id = models.CharField(max_length=64, unique=True)
    upstream_id = models.CharField(max_length=128, blank=True)
    key = models.ForeignKey("sessions_limit.ClientKey", null=True, on_delete=models.SET_NULL)
    account = models.ForeignKey("accounts.Account", null=True, on_delete=models.SET_NULL)
    provider = models.CharField(max_length=16, blank=True)
    organization = models.CharField(max_length=64, blank=True)
    session = models.CharField(max_length=128, blank=True, db_index=True)
    endpoint = models.CharField(max_length=64)
    model = models.CharField(max_length=128, blank=True)
    answered_by = models.CharField(max_length=128, blank=True)
    stream = models.BooleanField(default=False)
    status = models.PositiveSmallIntegerField()
    ended = models.CharField(max_length=32)
    verdict = models.CharField(max_length=16, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    trail = models.JSONField(default=dict)
    possible_double_spend = models.BooleanField(default=False)
    bytes_received = models.PositiveBigIntegerField(default=0)
    bytes_sent = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(null=True)
    output_tokens = models.PositiveBigIntegerField(null=True)
    cache_read_tokens = models.PositiveBigIntegerField(null=True)
    cache_write_5m_tokens = models.PositiveBigIntegerField(null=True)
    cache_write_1h_tokens = models.PositiveBigIntegerField(null=True)
    thinking_tokens = models.PositiveBigIntegerField(null=True)
    web_searches = models.PositiveIntegerField(null=True)
    web_fetches = models.PositiveIntegerField(null=True)
    service_tier = models.CharField(max_length=32, blank=True)
    speed = models.CharField(max_length=32, blank=True)
    geo = models.CharField(max_length=32, blank=True)
    parts = models.JSONField(default=list)
    is_partial = models.BooleanField(default=False)
    cost = models.BigIntegerField(null=True)
    saved = models.BigIntegerField(null=True)
    price_version = models.CharField(max_length=32, blank=True)
    started_at = models.DateTimeField(db_index=True)
    first_byte_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()
    first_byte_bucket = models.PositiveSmallIntegerField(null=True)
    duration_bucket = models.PositiveSmallIntegerField(null=True)

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return self.request_id


class Price(models.Model):
    """What an operator says that a model costs: USD per million tokens, per thousand searches.

    `model` is a name, or the beginning of names with `*` behind it. The price holds from
    `valid_from` on, for prompts of at least `prompt_from` tokens.
    """

    model = models.CharField(max_length=128)
    valid_from = models.DateTimeField()
    prompt_from = models.PositiveBigIntegerField(default=0)
    input = models.DecimalField(max_digits=12, decimal_places=6)
    output = models.DecimalField(max_digits=12, decimal_places=6)
    cache_read = models.DecimalField(max_digits=12, decimal_places=6)
    cache_write_5m = models.DecimalField(max_digits=12, decimal_places=6)
    cache_write_1h = models.DecimalField(max_digits=12, decimal_places=6)
    web_search = models.DecimalField(max_digits=12, decimal_places=6, default=10)

    class Meta:
        ordering = ("model", "-valid_from", "prompt_from")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=("model", "valid_from", "prompt_from"), name="one_price_per_beginning"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from:%Y-%m-%d}"


class DirtyPeriod(models.Model):
    """A period of which records changed since it was summed; see `usage.rollup`."""

    period = models.PositiveIntegerField(unique=True)
    marked_at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.period)


class UsagePeriod(models.Model):
    """The sums of a quarter of an hour, for one combination of what `grouping` tells apart.

    `period` counts quarters of an hour since 1970 (UTC). What a grouping does not tell apart is 0
    or "", and so is none. There are no foreign keys: sums outlive accounts and keys.
    """

    grouping = models.CharField(max_length=8)
    period = models.PositiveIntegerField()
    account = models.BigIntegerField(default=0)
    organization = models.CharField(max_length=64, blank=True)
    key = models.BigIntegerField(default=0)
    model = models.CharField(max_length=128, blank=True)
    provider = models.CharField(max_length=16, blank=True)
    endpoint = models.CharField(max_length=64, blank=True)
    status = models.PositiveSmallIntegerField(default=0)
    ended = models.CharField(max_length=32, blank=True)
    verdict = models.CharField(max_length=16, blank=True)
    requests = models.BigIntegerField(default=0)
    successes = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    thinking_tokens = models.BigIntegerField(default=0)
    web_searches = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)
    saved = models.BigIntegerField(default=0)
    unpriced = models.BigIntegerField(default=0)
    partial = models.BigIntegerField(default=0)
    double_billed = models.BigIntegerField(default=0)
    bytes_received = models.BigIntegerField(default=0)
    bytes_sent = models.BigIntegerField(default=0)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=("grouping", "period"), name="usage_period"),
            models.Index(
                fields=("account", "period"),
                name="usage_account_period",
                condition=models.Q(grouping="each"),
            ),
            models.Index(fields=("grouping", "key", "period"), name="usage_of_key"),
        ]

    def __str__(self) -> str:
        return f"{self.grouping} {self.period}"


class LatencyPeriod(models.Model):
    """How many requests of a quarter of an hour took how long, by the buckets of `usage.latency`.

    Each bucket has a column, b0 and on: a row per bucket would be more rows than there are records.
    """

    grouping = models.CharField(max_length=8)
    measure = models.CharField(max_length=10)
    period = models.PositiveIntegerField()
    account = models.BigIntegerField(default=0)
    key = models.BigIntegerField(default=0)
    model = models.CharField(max_length=128, blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=("grouping", "measure", "period"), name="latency_period"),
        ]

    def __str__(self) -> str:
        return f"{self.measure} {self.period}"


for _number in range(latency.BUCKETS):
    LatencyPeriod.add_to_class(f"b{_number}", models.PositiveIntegerField(default=0))


class Horizon(models.Model):
    """The first period of which records are still kept; there is one row at most."""

    period = models.PositiveIntegerField()

    def __str__(self) -> str:
        return str(self.period)
