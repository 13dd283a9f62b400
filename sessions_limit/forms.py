"""The forms of keys: what a key is given, and how long the one that it replaces still works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.apps import apps
from django.utils import timezone

from lib import names
from sessions_limit import caps, terms
from sessions_limit.models import ClientKey
from sessions_limit.scopes import ANY
from sessions_limit.terms import BadTerms
from usage import asking

OFF = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
WHOLE, MONEY = {**OFF, "inputmode": "numeric"}, {**OFF, "inputmode": "decimal"}
MOMENT = "%Y-%m-%dT%H:%M"
SHOWN_NAME = 60
LIFETIMES = (
    ("", "never expires"),
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "a year"),
)
OVERLAPS = (
    ("24", "24 hours, so that there is time to change it everywhere"),
    ("1", "1 hour"),
    ("168", "7 days"),
    ("0", "not at all: it ends now"),
)


def _text(most: int, attrs: dict[str, Any] = OFF, **given: Any) -> forms.CharField:
    """Return a field whose text terms.py reads; a number too is a text, which stays as typed."""
    base: dict[str, Any] = {"max_length": most, "required": False}
    return forms.CharField(**base | {"widget": forms.TextInput(attrs=attrs)} | given)


def _lines(**given: Any) -> forms.CharField:
    return _text(7000, widget=forms.Textarea(attrs={**OFF, "rows": 2}), **given)


class TermsForm(forms.Form):
    """The terms of a key as texts; what they mean and which cannot be is for terms.py to say."""

    name = _text(100, required=True)
    owner = _text(100, help_text="Who holds it, if the name does not say so.")
    model_patterns = _lines(
        label="Only these models",
        help_text="One per line; * stands for any text, as in <code>claude-haiku-*</code>. "
        "Empty: all.",
    )
    networks = _lines(
        label="Only from these networks",
        help_text="One per line, as <code>192.0.2.0/24</code>. Empty: from anywhere.",
    )
    labels = _text(
        700,
        label="Only accounts labelled",
        help_text="Words with spaces between them; one of them will do. Empty: all.",
    )
    pinned_account = _text(20, label="Only this account", widget=forms.Select())
    passthrough = forms.BooleanField(
        label="Pass-through: its holder keeps their own Claude login; no account is used",
        required=False,
    )
    max_sessions = _text(20, WHOLE, label="Sessions at once")
    max_in_flight = _text(20, WHOLE, label="Requests at once")
    requests_per_minute = _text(20, WHOLE, label="Requests a minute", help_text="Empty: no limit.")
    tokens_per_minute = _text(20, WHOLE, label="Tokens a minute", help_text="Empty: no limit.")
    tokens_per_day = _text(20, WHOLE, label="Tokens a day")
    tokens_per_week = _text(20, WHOLE, label="Tokens a week")
    tokens_per_month = _text(20, WHOLE, label="Tokens a month")
    usd_per_day = _text(20, MONEY, label="USD a day")
    usd_per_week = _text(20, MONEY, label="USD a week")
    usd_per_month = _text(20, MONEY, label="USD a month")
    time_zone = _text(
        64,
        {**OFF, "list": "zones"},
        initial="UTC",
        help_text="Days, weeks (from Monday) and months begin by its clocks.",
    )

    def __init__(self, data: Any = None, *, pinned: int | None = None, **given: Any) -> None:
        super().__init__(data, **given)
        self.columns: dict[str, Any] = {}
        self.fields["pinned_account"].widget.choices = list(_accounts(pinned))
        for name, text in _defaults().items():
            self.fields[name].help_text = text

    @property
    def zones(self) -> list[str]:
        """The names of time zones, to choose from: a list of so many options is slow to make."""
        return sorted(asking.zones())

    def clean(self) -> None:
        """Have every text read, and say beside its field what cannot be."""
        told = set(self.changed_data) & set(self.cleaned_data) & set(terms.RULES)
        try:
            self.columns = terms.checked(**{name: self.cleaned_data[name] for name in told})
        except BadTerms as error:
            for name, text in error.errors.items():
                self.add_error(name, text)


class KeyForm(TermsForm):
    """A new key."""

    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, label="Expires after")

    @property
    def has_more(self) -> bool:
        """Whether anything was filled in, or is wrong, that most keys do without."""
        told = set(self.changed_data) | set(self.errors) if self.is_bound else set()
        return bool(told - {"name", "owner", "lifetime"})

    def expires_at(self, now: datetime | None = None) -> datetime | None:
        """Return the end of the wanted life; None for a key without one."""
        days = self.cleaned_data["lifetime"]
        return (now or timezone.now()) + timedelta(days=int(days)) if days else None


class KeyTermsForm(TermsForm):
    """The terms of a key that exists; what this form did not change stays, whoever changed it."""

    expires_at = _text(
        40,
        label="Expires (UTC)",
        widget=forms.TextInput(attrs={**OFF, "type": "datetime-local"}),
        help_text="Empty: never.",
    )

    def __init__(self, data: Any = None, *, key: ClientKey) -> None:
        initial = {name: _shown(value) for name, value in terms.of(key).items()}
        # In a field of one line the words would run together.
        initial["labels"] = " ".join(key.labels)
        super().__init__(data, initial=initial, pinned=key.pinned_account)
        for field in self.fields.values():
            # What is sent is held against what was shown, not against what holds by now.
            field.show_hidden_initial = True


class RotateForm(forms.Form):
    """How long the old secret still works; `hint` is of the one that was there to be replaced."""

    overlap = forms.ChoiceField(
        choices=OVERLAPS,
        initial="24",
        label="The old key still works for",
        widget=forms.RadioSelect(),
    )
    hint = forms.CharField(max_length=8, widget=forms.HiddenInput())

    @property
    def hours(self) -> timedelta:
        """How long the old one still works."""
        return timedelta(hours=int(self.cleaned_data["overlap"]))


def _accounts(pinned: int | None) -> Iterator[tuple[str, str]]:
    """Yield the accounts of the pool, and the one of the key also when it is gone."""
    rows = apps.get_model("accounts.Account")._default_manager.filter(deleted_at=None)
    known = dict(rows.order_by("name").values_list("pk", "name"))
    yield "", "any account"
    if pinned is not None and pinned not in known:
        yield str(pinned), f"a removed account ({pinned})"
    for pk, name in known.items():
        yield str(pk), f"{names.plain(name)[:SHOWN_NAME]} ({pk})"


def _defaults() -> dict[str, str]:
    """Say what holds for a key without a number of its own."""
    return {
        "max_sessions": f"Empty: {_number(caps.most_sessions(None))}. 0: none. -1: any number.",
        "max_in_flight": f"Empty: {_number(caps.most_in_flight(None))}.",
    }


def _number(most: int) -> str:
    return "any number" if most == ANY else f"{most}, as for every key"


def _shown(value: Any) -> Any:
    """Return a term as its field shows it."""
    match value:
        case list():
            return "\n".join(map(str, value))
        case Decimal():
            return f"{value.normalize():f}"
        case datetime():
            return value.astimezone(UTC).strftime(MOMENT)
        case None:
            return ""
        case bool():
            return value
    return str(value)
