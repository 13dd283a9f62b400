"""When each key was last used, learnt from the request records."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Max, Q
from django.utils import timezone

from sessions_limit.models import ClientKey
from usage.models import RequestRecord

LOOK_BACK = timedelta(hours=1)


def note_last_use(now: datetime | None = None) -> int:
    """Move `last_used_at` of keys forward to their last request; return how many moved.

    The data plane writes nothing for this: records are kept anyway.
    """
    since = (now or timezone.now()) - LOOK_BACK
    recent = RequestRecord.objects.filter(started_at__gte=since, key__isnull=False)
    moved = 0
    for key, at in recent.order_by().values_list("key").annotate(Max("started_at")):
        older = Q(last_used_at=None) | Q(last_used_at__lt=at)
        moved += ClientKey.objects.filter(older, pk=key).update(last_used_at=at)
    return moved
