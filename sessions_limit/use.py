"""When and from where each key was last used, learnt from what is recorded anyway."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Max, Q
from django.utils import timezone

from sessions_limit.models import ClientKey, ClientSession
from usage.models import RequestRecord

LOOK_BACK = timedelta(hours=1)
MOST_ADDRESSES = 5


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


def note_addresses(now: datetime | None = None) -> int:
    """Put the addresses of the last sessions of each key in front; return how many keys changed."""
    since = (now or timezone.now()) - LOOK_BACK
    seen = ClientSession.objects.filter(last_seen_at__gte=since).exclude(address="")
    latest = seen.values_list("key", "address").annotate(at=Max("last_seen_at")).order_by("-at")
    found: dict[int, list[str]] = {}
    for key, address, _ in latest.iterator():
        addresses = found.setdefault(key, [])
        if len(addresses) < MOST_ADDRESSES:
            addresses.append(address)
    known = ClientKey.objects.filter(pk__in=found).values_list("pk", "last_addresses")
    changed = 0
    for key, before in known:
        addresses = list(dict.fromkeys([*found[key], *before]))[:MOST_ADDRESSES]
        if addresses != before:
            changed += ClientKey.objects.filter(pk=key).update(last_addresses=addresses)
    return changed
