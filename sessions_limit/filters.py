"""What the lists of keys and sessions are asked for by their addresses."""

from __future__ import annotations

from typing import Any

from django import forms

from events.api import LARGEST_ID
from sessions_limit.forms import OFF, SHOWN_NAME
from sessions_limit.listing import STATES
from sessions_limit.models import ClientKey
from sessions_limit.revoking import NoAddress, read_address
from sessions_limit.showing import ALL, ENDED, LIVING

LAST_PAGE = 10_000


def _search(label: str) -> forms.CharField:
    widget = forms.TextInput(attrs={**OFF, "type": "search"})
    return forms.CharField(max_length=128, required=False, label=label, widget=widget)


def _hidden_number(most: int) -> forms.IntegerField:
    return forms.IntegerField(
        required=False, min_value=1, max_value=most, widget=forms.HiddenInput()
    )


class Filter(forms.Form):
    """A filter whose every part may be left out; what cannot be read filters nothing."""

    @property
    def told(self) -> dict[str, Any]:
        """Return what is asked for; "" or None where nothing is."""
        self.is_valid()
        return {name: self.cleaned_data.get(name) for name in self.fields}


class KeyFilter(Filter):
    """Which keys the list shows."""

    state = forms.ChoiceField(
        choices=[("", "any"), *((state, state) for state in STATES)], required=False
    )
    q = _search("Name, owner or last characters")
    page = _hidden_number(LAST_PAGE)


class SessionFilter(Filter):
    """Which sessions the list shows."""

    state = forms.ChoiceField(
        choices=[(LIVING, "living"), (ENDED, "ended"), (ALL, "all")], required=False
    )
    key = forms.TypedChoiceField(required=False, coerce=int, empty_value=None)
    address = _search("Address")
    q = _search("Session or agent")
    account = _hidden_number(LARGEST_ID)
    page = _hidden_number(LAST_PAGE)

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        keys = ClientKey.objects.order_by("name", "pk").values_list("pk", "name")
        named = [(str(pk), f"{name[:SHOWN_NAME]} ({pk})") for pk, name in keys]
        self.fields["key"].choices = [("", "any"), *named]  # type: ignore[attr-defined]

    def clean_address(self) -> str:
        """Return the address as the record has it."""
        text = self.cleaned_data["address"]
        try:
            return read_address(text) if text else ""
        except NoAddress as error:
            raise forms.ValidationError(f"{error}.") from None
