"""The end of removed accounts: what is left of them is deleted after a month."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import ForeignObject, ForeignObjectRel, Model, QuerySet
from django.utils import timezone

from accounts.models import Account
from events import journal

KEPT = timedelta(days=30)
BATCH = 500


def purge_removed(now: datetime | None = None) -> int:
    """Delete the rows of accounts that were removed a month ago; return how many.

    Request records stay and lose the account. In small batches: nobody waits long for a lock.
    """
    old = Account.objects.filter(deleted_at__lte=(now or timezone.now()) - KEPT)
    return sum(_purge(account) for account in old.values_list("pk", flat=True))


def _purge(account: int) -> bool:
    for field in _references():
        rows = field.model._base_manager.filter(**{field.name: account})
        while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
            _let_go(rows.filter(pk__in=batch), field.name if field.null else "")
    deleted, _ = Account.objects.filter(pk=account, deleted_at__isnull=False).delete()
    if deleted:
        journal.record("account.purged", f"account:{account}", by="job")
    return bool(deleted)


def _references() -> list[ForeignObject[Any, Any]]:
    """Return the columns of all tables, of apps above this one too, that refer to an account."""
    found = Account._meta.get_fields(include_hidden=True)
    return [relation.field for relation in found if isinstance(relation, ForeignObjectRel)]


def _let_go(rows: QuerySet[Model], reference: str) -> None:
    """Clear the rows' reference to the account; without one that may be empty, delete them."""
    if reference:
        rows.update(**{reference: None})
    else:
        rows.delete()
