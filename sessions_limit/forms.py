"""The form that makes a key."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms
from django.utils import timezone

from lib import names
from sessions_limit import keys

LIFETIMES = (
    ("", "never expires"),
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "a year"),
)


class KeyForm(forms.Form):
    """What a new key is called and how long it lives."""

    name = forms.CharField(
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, label="Expires after")
    labels = forms.CharField(
        max_length=700,
        required=False,
        label="Only accounts labelled",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "any"}),
    )

    def clean_name(self) -> str:
        """Take out what cannot be seen, such as marks that turn the text around."""
        name = names.plain(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("Give the key a name that can be read.")
        return name

    def clean_labels(self) -> list[str]:
        """Return the labels, which stand apart by blanks or commas."""
        try:
            return keys.checked(self.cleaned_data["labels"].replace(",", " ").split())
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None

    def expires_at(self, now: datetime | None = None) -> datetime | None:
        """Return the end of the wanted life; None for a key without one."""
        days = self.cleaned_data["lifetime"]
        return (now or timezone.now()) + timedelta(days=int(days)) if days else None
