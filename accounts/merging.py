"""Makes one account of two that turn out to be the same one at Anthropic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.apps import apps
from django.db import models, transaction
from django.db.models import F, Max, Q

from accounts import grants
from accounts.models import POOL, Account, Credential, Egress
from accounts.states import Status
from events import journal
from events.models import Condition
from lib import bus


def unite(
    account: int, account_uuid: str, organization_uuid: str, *, by: str, now: datetime
) -> int | None:
    """Merge an account with the one that already has this identity, if another one has.

    Return the account that is left (the one linked first, with its name and settings); None: not
    now, because one of them is being refreshed or was changed a moment ago.
    """
    same = Account.objects.filter(
        account_uuid=account_uuid, organization_uuid=organization_uuid, deleted_at=None
    )
    twin = same.exclude(pk=account).values_list("pk", flat=True).first()
    if twin is None:
        return account
    kept, duplicate = sorted((account, twin))
    return kept if merge(duplicate, kept, by=by, now=now) else None


def merge(duplicate: int, into: int, *, by: str, now: datetime) -> bool:
    """Turn a duplicate into a re-link of the account that stays; False: not now, or too late.

    All of the duplicate's grants move. The account goes on with the better login of the two: one
    that lives before a dead one, then the one that was made last.
    """
    with transaction.atomic():
        rows = Account.objects.filter(_idle(now), pk__in=(duplicate, into), deleted_at=None)
        # On SQLite the transaction holds the one lock; elsewhere these two rows are locked, in the
        # same order by everybody.
        locked = {row.pk: row for row in rows.select_for_update().order_by("pk")}
        if len(locked) < 2 or locked[duplicate].intent_credential is not None:
            return False
        old, kept = locked[duplicate], locked[into]
        credential, is_better = old.credential, _rank(old, now) > _rank(kept, now)
        _entomb(old, kept, by, now)
        _move_grants(old, kept)
        _move_belongings(old, kept)
        facts: dict[str, Any] = {
            "grant_started_at": old.grant_started_at,
            "grant_ends_at": old.grant_ends_at,
        }
        if is_better and credential is not None:
            credential.refresh_from_db(fields=["account", "grant"])
            facts |= {"scopes": old.scopes} if old.scopes else {}
            grants.switch(kept, credential, by=by, now=now, facts=facts, duplicate=old.pk)
        moved = {"duplicate": old.pk, "name": old.name, "took_its_login": is_better}
        journal.record("account.merged", kept.subject, by=by, **moved)
        bus.changed(POOL)
    return True


def _idle(now: datetime) -> Q:
    return Q(lease_until=None) | Q(lease_until__lte=now)


def _rank(account: Account, now: datetime) -> tuple[bool, float]:
    """Return what orders the logins of two accounts, the better one last."""
    credential = account.credential
    if credential is None:
        return False, 0.0
    ended = Credential.objects.filter(
        pk=credential.pk, refresh_token__isnull=True, expires_at__lte=now
    ).exists()
    is_alive = account.status != Status.INVALID and not ended
    return is_alive, (account.grant_started_at or credential.obtained_at).timestamp()


def _entomb(old: Account, kept: Account, by: str, now: datetime) -> None:
    """Leave of the duplicate what the history needs, as a removal does."""
    Account.objects.filter(pk=old.pk).update(
        deleted_at=now,
        credential=None,
        # Frees the name; the number keeps the old one unique.
        name=f"{old.name[:70]} (merged, {old.pk})",
        secret_hash="",
        lease_owner="",
        lease_until=None,
        state_version=F("state_version") + 1,
    )
    Condition.objects.filter(subject=old.subject).delete()
    facts = {"name": old.name, "old": old.status, "merged_into": kept.pk}
    journal.record("account.removed", old.subject, by=by, **facts)


def _move_grants(old: Account, kept: Account) -> None:
    # A credential is sealed to its own id, so it opens under any account.
    last = kept.credentials.aggregate(last=Max("grant"))["last"] or 0
    old.credentials.update(account=kept, grant=F("grant") + last)
    # What went through a proxy must not suddenly go without one.
    if not Egress.objects.filter(account=kept).exists():
        Egress.objects.filter(account=old).update(account=kept)
    Egress.objects.filter(account=old).delete()


def _move_belongings(old: Account, kept: Account) -> None:
    """Move what the duplicate keeps for others (batches, files); its history stays with it.

    What would be deleted with an account belongs to it, whichever app it is of; what would only
    lose its mention is history. This app's own rows tell of limits, which the next answer tells
    again.
    """
    for relation in _relations():
        relation.related_model._base_manager.filter(**{relation.field.name: old}).update(
            **{relation.field.name: kept}
        )


def _relations() -> list[Any]:
    ours = set(apps.get_app_config("accounts").get_models())
    return [
        relation
        for relation in Account._meta.get_fields(include_hidden=True)
        if isinstance(relation, models.ManyToOneRel)
        and not isinstance(relation, models.OneToOneRel)
        and relation.on_delete is models.CASCADE
        and relation.related_model not in ours
    ]
