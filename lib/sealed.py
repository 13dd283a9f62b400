"""A model column that is encrypted at rest and opens only in the row it was written for."""

from __future__ import annotations

from typing import Any

from django.db import models

from lib.crypto import DecryptError, ring


class Ciphertext(str):
    """A value as it stands in the database, to tell it from a plain text not saved yet."""


class Sealed(models.TextField):  # type: ignore[type-arg]
    """An encrypted text column.

    `label` is the constant that stands for table and column in the associated data (a renamed table
    must not make every credential unreadable); the row is named by its primary key, which must be
    made in Python, before the first save.
    """

    def __init__(self, label: str = "", **options: Any) -> None:
        self.label = label
        super().__init__(**options)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Describe the column to migrations."""
        name, path, args, options = super().deconstruct()
        return name, path, list(args), dict(options) | {"label": self.label}

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        """Put the descriptor that opens the value on the model."""
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, _Opened(self))

    def bound_to(self, row: models.Model) -> str:
        """Name the one place where a value may be opened."""
        if not row.pk:
            raise DecryptError(f"{self.label}: the row has no identity yet")
        return f"{self.label}\0{row.pk}"

    def get_lookup(self, lookup_name: str) -> Any:
        """Refuse to search a sealed column; only `isnull` makes sense."""
        if lookup_name != "isnull":
            raise TypeError("a sealed column cannot be searched")
        return super().get_lookup(lookup_name)

    def from_db_value(self, value: str | None, *_: Any) -> Ciphertext | None:
        """Mark what the database gave as ciphertext."""
        return None if value is None else Ciphertext(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Ciphertext | None:
        """Seal a plain text for its row; leave a ciphertext as it is."""
        value = model_instance.__dict__.get(self.attname)
        if value is None or isinstance(value, Ciphertext):
            return value
        sealed = Ciphertext(ring().seal(value, self.bound_to(model_instance)))
        model_instance.__dict__[self.attname] = sealed
        return sealed

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Let only sealed values into the database (`update(column=plain)` fails)."""
        if value is not None and not isinstance(value, Ciphertext):
            raise TypeError("only a row can write a sealed column")
        return None if value is None else str(value)

    def value_from_object(self, obj: models.Model) -> str | None:
        """Give dumps and forms the ciphertext, never the text."""
        value = obj.__dict__.get(self.attname)
        return str(value) if isinstance(value, Ciphertext) else None


class _Opened:
    """Opens the column's value when the attribute is read."""

    def __init__(self, field: Sealed) -> None:
        self.field = field

    def __get__(self, row: models.Model | None, owner: type[models.Model]) -> Any:
        if row is None:
            return self
        name = self.field.attname
        if name not in row.__dict__:
            row.refresh_from_db(fields=[name])
        value = row.__dict__[name]
        return (
            ring().open(value, self.field.bound_to(row)) if isinstance(value, Ciphertext) else value
        )

    def __set__(self, row: models.Model, value: str | None) -> None:
        row.__dict__[self.field.attname] = value
