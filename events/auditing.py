"""What operators change in Django admin, in the journal too."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.db.models.signals import post_save
from django.dispatch import receiver

from events import journal

KINDS = {ADDITION: "admin.added", CHANGE: "admin.changed", DELETION: "admin.deleted"}


@receiver(post_save, sender=LogEntry)
def note(instance: LogEntry, created: bool, **_: Any) -> None:
    """Journal one action; admin's own log names the fields that changed, never what they hold.

    Admin deletes one at a time: rows that are deleted together would be logged without a signal.
    """
    if created:
        journal.record(
            KINDS[instance.action_flag],
            f"{instance.content_type.model if instance.content_type else ''}:{instance.object_id}",
            by=instance.user.get_username(),
            name=instance.object_repr,
            what=instance.get_change_message(),
        )
