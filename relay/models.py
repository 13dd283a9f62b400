"""What accounts keep for keys, and which models each account has."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone


class Resource(models.Model):
    """A batch or file: the account that made it, and the key that may see it."""

    kind = models.CharField(max_length=16)
    upstream_id = models.CharField(max_length=128)
    account = models.ForeignKey("accounts.Account", on_delete=models.CASCADE, related_name="+")
    key = models.ForeignKey("sessions_limit.ClientKey", on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=("kind", "upstream_id"), name="one_row_per_resource")
        ]
        indexes: ClassVar = [models.Index(fields=("key", "kind", "id"), name="resources_of_a_key")]

    def __str__(self) -> str:
        return self.upstream_id


class ModelList(models.Model):
    """The models that one account last said it has, as the API lists them."""

    account = models.OneToOneField("accounts.Account", on_delete=models.CASCADE, related_name="+")
    data = models.JSONField()
    fetched_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"models of account {self.account_id}"
