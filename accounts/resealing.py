"""Seals everything anew that an older key of CREDENTIAL_KEYS sealed, so that it can go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import redis
from django.apps import apps
from django.db.models import Model, TextField
from django.db.models.functions import Cast

from accounts import parking
from events import journal
from lib.crypto import DecryptError, ring
from lib.sealed import Ciphertext, Sealed

# Whoever seals meanwhile with an older key (a process not restarted yet) is met once more.
PASSES = 3


@dataclass(slots=True)
class Report:
    """What came of it. `unopened` names the columns and rows that open with none of the keys.

    `remaining`: still sealed by an older key, because somebody wrote them just now.
    `parked_unknown`: Redis was away, so nobody knows what is parked there.
    """

    resealed: int = 0
    remaining: int = 0
    unopened: list[str] = field(default_factory=list)
    parked_unknown: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the older keys can go."""
        return not (self.remaining or self.unopened or self.parked_unknown)


@dataclass(frozen=True, slots=True)
class _Value:
    """A sealed value where it lies."""

    model: type[Model]
    column: Sealed
    pk: object
    sealed: str

    @property
    def place(self) -> str:
        return f"{self.model._meta.label_lower}.{self.column.attname} {self.pk}"

    @property
    def bound_to(self) -> str:
        return self.column.bound_to(self.model(pk=self.pk))


@dataclass(slots=True)
class Count:
    """How many sealed values open; `stale` ones need an older key than the first."""

    opened: int = 0
    stale: int = 0
    unopened: list[str] = field(default_factory=list)


def count(batch: int = 500) -> Count:
    """Try to open every sealed value, and change none."""
    count = Count()
    for value in _values(batch):
        try:
            ring().open(value.sealed, value.bound_to)
        except DecryptError:
            count.unopened.append(value.place)
            continue
        count.opened += 1
        count.stale += ring().is_stale(value.sealed)
    return count


def reseal(batch: int = 100, *, by: str) -> Report:
    """Re-seal every value that the first key did not seal; may be broken off and run again.

    Each row is changed only if it is still as it was read, so a refresh that commits meanwhile
    wins.
    """
    report = Report()
    for _ in range(PASSES):
        before = report.resealed
        _pass(report, batch)
        if report.resealed == before and not report.remaining:
            break
    else:
        # Found in every pass: somebody still seals with an older key.
        report.remaining += report.resealed - before
    journal.record(
        "credentials.rotated",
        "keys:credential",
        by=by,
        resealed=report.resealed,
        remaining=report.remaining,
        unopened=len(report.unopened),
    )
    return report


def _pass(report: Report, batch: int) -> None:
    report.remaining, report.unopened = 0, []
    for value in _values(batch):
        try:
            text = ring().open(value.sealed, value.bound_to)
        except DecryptError:
            report.unopened.append(value.place)
            continue
        if not ring().is_stale(value.sealed):
            continue
        sealed = Ciphertext(ring().seal(text, value.bound_to))
        won = _swap(value, sealed)
        report.resealed += won
        report.remaining += not won
    try:
        parked = parking.reseal()
    except (redis.RedisError, OSError):
        report.parked_unknown = True
        return
    report.parked_unknown = False
    report.resealed += parked.resealed
    report.remaining += parked.remaining
    report.unopened += [f"parked {place}" for place in parked.unopened]


def _values(batch: int) -> Iterator[_Value]:
    """Yield every sealed value of the database, read in batches by primary key."""
    for model in apps.get_models():
        columns = [column for column in model._meta.local_fields if isinstance(column, Sealed)]
        names = [column.attname for column in columns]
        rows = model._base_manager.order_by("pk").values_list("pk", *names)
        page = list(rows[:batch]) if columns else []
        while page:
            for pk, *sealed in page:
                for column, value in zip(columns, sealed, strict=True):
                    if value is not None:
                        yield _Value(model, column, pk, str(value))
            page = list(rows.filter(pk__gt=page[-1][0])[:batch])


def _swap(value: _Value, sealed: Ciphertext) -> bool:
    # A sealed column cannot be searched by its text, but it can be compared as it is stored.
    name = value.column.attname
    rows = value.model._base_manager.annotate(stored=Cast(name, TextField()))
    return bool(rows.filter(pk=value.pk, stored=value.sealed).update(**{name: sealed}))
