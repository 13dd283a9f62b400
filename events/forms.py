"""The forms of the alert pages and the filter of the journal."""

from __future__ import annotations

from typing import Any

from django import forms

from events import history, rulebook, rules
from events.models import Channel, Rule
from lib import names

OFF = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


class AddressInput(forms.TextInput):
    """A field for an address that may hold a token: what was typed is never repeated."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Leave the value out of the page."""
        return super().get_context(name, None, attrs)


class Named(forms.Form):
    """Something with a name that people read."""

    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def clean_name(self) -> str:
        """Take out what cannot be seen, such as marks that turn the text around."""
        name = names.plain(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("Give it a name that can be read.")
        return name


class ChannelForm(Named):
    """A new webhook."""

    url = forms.CharField(
        max_length=500,
        label="Address",
        help_text="Begins with https://. It is stored encrypted, because it may hold a token.",
        widget=AddressInput(attrs=OFF),
    )
    preset = forms.BooleanField(
        required=False,
        initial=True,
        label="Send it everything that needs somebody",
    )


class ChannelEditForm(Named):
    """A channel's name and, if it shall change, its address."""

    url = forms.CharField(
        max_length=500,
        required=False,
        label="New address",
        help_text="Leave it empty to keep the present one, which is not shown.",
        widget=AddressInput(attrs=OFF),
    )


class RuleForm(Named):
    """Which events go to which channel."""

    channel = forms.ModelChoiceField(Channel.objects.none(), empty_label=None)
    kinds = forms.CharField(
        max_length=8000,
        label="Kinds of event",
        initial="\n".join(rules.NEEDS_SOMEBODY),
        help_text="One per line; * stands for any text, as in account.*",
        widget=forms.Textarea(attrs={"rows": 9, **OFF}),
    )
    subjects = forms.CharField(
        max_length=8000,
        required=False,
        label="Only about",
        help_text="One subject per line, like account:7. Empty means everything.",
        widget=forms.Textarea(attrs={"rows": 2, **OFF}),
    )
    throttle_seconds = forms.IntegerField(
        label="At most one in (seconds)",
        initial=rulebook.THROTTLE,
        min_value=0,
        max_value=rulebook.LONGEST_THROTTLE,
        help_text="Per subject and kind. The next one says how many were held back.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["channel"].queryset = Channel.objects.filter(removed_at=None)  # type: ignore[attr-defined]

    def clean_kinds(self) -> list[str]:
        """Return one pattern per line or word."""
        return str(self.cleaned_data["kinds"]).split()

    def clean_subjects(self) -> list[str]:
        """Return one pattern per line or word."""
        return str(self.cleaned_data["subjects"]).split()

    @classmethod
    def of(cls, rule: Rule) -> dict[str, Any]:
        """Return a rule as the form's first values."""
        return {
            "name": rule.name,
            "channel": rule.channel_id,
            "kinds": "\n".join(rule.kinds),
            "subjects": "\n".join(rule.subjects),
            "throttle_seconds": rule.throttle_seconds,
        }


class JournalForm(forms.Form):
    """Which events the journal's page shows."""

    kind = forms.CharField(max_length=64, required=False, widget=forms.TextInput(attrs=OFF))
    subject = forms.CharField(max_length=128, required=False, widget=forms.TextInput(attrs=OFF))
    by = forms.CharField(max_length=150, required=False, widget=forms.TextInput(attrs=OFF))
    since = forms.DateTimeField(
        required=False,
        label="Since (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    before = forms.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput()
    )

    def wanted(self) -> history.Wanted:
        """Return the filter; what cannot be read filters nothing."""
        self.is_valid()
        given = {name: value for name, value in self.cleaned_data.items() if value}
        return history.Wanted(**given)
