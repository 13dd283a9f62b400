"""One row per relayed request; prompts and answers are never stored."""

from __future__ import annotations

from django.db import models


class RequestRecord(models.Model):
    """What one relayed request was, where it went, how it ended and what it used."""

    request_id = models.CharField(max_length=64, unique=True)
    key = models.ForeignKey("sessions_limit.ClientKey", null=True, on_delete=models.SET_NULL)
    account = models.ForeignKey("accounts.Account", null=True, on_delete=models.SET_NULL)
    session = models.CharField(max_length=128, blank=True)
    endpoint = models.CharField(max_length=64)
    model = models.CharField(max_length=128, blank=True)
    stream = models.BooleanField(default=False)
    status = models.PositiveSmallIntegerField()
    ended = models.CharField(max_length=32)
    attempts = models.PositiveSmallIntegerField(default=0)
    trail = models.JSONField(default=dict)
    possible_double_spend = models.BooleanField(default=False)
    input_tokens = models.PositiveBigIntegerField(null=True)
    output_tokens = models.PositiveBigIntegerField(null=True)
    cache_read_tokens = models.PositiveBigIntegerField(null=True)
    cache_write_tokens = models.PositiveBigIntegerField(null=True)
    started_at = models.DateTimeField(db_index=True)
    first_byte_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return self.request_id
