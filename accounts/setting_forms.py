"""The form of an account's settings: what stands in it, and what it changes."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts import egress, endpoints
from accounts.forms import EndpointFields, proxy_field
from accounts.models import Account
from accounts.states import Kind

OFF = {"autocomplete": "off", "spellcheck": "false"}
NO_LIMIT = "Empty: no limit of ours."
KEEP = "Leave it empty to keep the present one, which is not shown."


def _limit(label: str) -> forms.IntegerField:
    return forms.IntegerField(label=label, required=False, min_value=1, help_text=NO_LIMIT)


class SettingForm(forms.Form):
    """How the pool uses an account."""

    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs=OFF))
    labels = forms.CharField(
        required=False,
        max_length=700,
        help_text="Words with spaces between them. A key with labels is served only by accounts "
        "that have one of them.",
        widget=forms.TextInput(attrs=OFF),
    )
    priority = forms.IntegerField(
        min_value=0, max_value=1000, help_text="Lower goes first, with the strategy “priority”."
    )
    weight = forms.IntegerField(
        min_value=1, max_value=100, help_text="Its share of turns, with the strategy “weighted”."
    )
    max_in_flight = _limit("Requests at once")
    requests_per_minute = _limit("Requests a minute")
    tokens_per_minute = _limit("Tokens a minute")
    leave_at_percent = forms.IntegerField(
        label="Leave at … % of a window",
        required=False,
        min_value=1,
        max_value=100,
        help_text="The rest is kept for its owner. Empty: all of it may be used.",
    )
    never_overage = forms.BooleanField(label="Never use paid extra usage", required=False)
    pinned = forms.BooleanField(label="Never set aside as unused", required=False)
    proxy = proxy_field()
    no_proxy = forms.BooleanField(label="Use no proxy any more", required=False)

    def __init__(self, data: Any, *, account: Account) -> None:
        self.account, self.proxy_now = account, egress.shown(account)
        super().__init__(data, initial=self._initial())
        if self.proxy_now:
            self.fields["proxy"].help_text = f"{KEEP} Special characters are written as %40."
        else:
            del self.fields["no_proxy"]

    def clean_labels(self) -> list[str]:
        """Read the words."""
        return self.cleaned_data["labels"].replace(",", " ").split()  # type: ignore[no-any-return]

    def changes(self) -> dict[str, Any]:
        """Return the fields that shall be another value than the account has."""
        given = dict(self.cleaned_data)
        proxy, ends = given.pop("proxy"), given.pop("no_proxy", False)
        secret = given.pop("secret", "")
        changed = {
            name: value for name, value in given.items() if getattr(self.account, name) != value
        }
        if secret:
            changed["secret"] = secret
        if proxy or ends:
            changed["proxy"] = proxy
        return changed

    def _initial(self) -> dict[str, Any]:
        columns = {name: getattr(self.account, name, None) for name in self.base_fields}
        return columns | {"labels": " ".join(self.account.labels), "proxy": "", "secret": ""}


class EndpointSettingForm(EndpointFields, SettingForm):
    """The same and, of a compatible endpoint, where it is and how it is spoken to."""

    def __init__(self, data: Any, *, account: Account) -> None:
        super().__init__(data, account=account)
        self.fields[
            "secret"
        ].help_text = (
            f"{KEEP} Another base URL or another way of sending it asks for the secret again."
        )

    def _initial(self) -> dict[str, Any]:
        written = endpoints.written_map(self.account.model_map)
        return super()._initial() | {"model_map": written}


def form_for(account: Account, data: Any = None) -> SettingForm:
    """Return the form for this kind of account."""
    form = EndpointSettingForm if account.kind == Kind.COMPATIBLE else SettingForm
    return form(data, account=account)
