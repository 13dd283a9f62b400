"""The forms of the account pages."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.endpoints import read_map
from accounts.presets import ALL
from accounts.states import Auth, Kind

CREDENTIALS_FILE = "credentials_file"
SECRETS = (
    (Kind.API_KEY.value, "API key of the Claude Console"),
    (Kind.SETUP_TOKEN.value, "Setup token (claude setup-token)"),
    (CREDENTIALS_FILE, "Claude Code’s credentials file"),
)
AGREE = "I have read this, and I may link this account."
LONGEST_SECRET = 20_000
PERSONAL = ("sk-ant-oat", "sk-ant-ort")
LOOKS_PERSONAL = (
    "This looks like a person’s token, not like an API key. Choose what it is, "
    "or tick the box below to add it as it is."
)


class SecretArea(forms.Textarea):
    """A text area that never repeats what was typed into it."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Leave the value out of the page."""
        return super().get_context(name, None, attrs)


class TermsForm(forms.Form):
    """The box to tick before a login begins."""

    agree = forms.BooleanField(
        label=AGREE, error_messages={"required": "Tick the box first, if you may."}
    )


class PasteForm(forms.Form):
    """What the last page of the login shows."""

    pasted = forms.CharField(
        label="Code",
        max_length=4096,
        help_text="The whole line, as in <code>code#state</code>, or the address of that page.",
        error_messages={"required": "Paste the code that the last page of the login shows."},
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
        ),
    )


class NameForm(forms.Form):
    """What a new account shall be called."""

    name = forms.CharField(max_length=100, required=False, help_text="How the console calls it.")


PROXY_HELP = (
    "Only if this account’s requests shall go by a proxy of its own, as in "
    "<code>socks5h://user:password@host:1080</code> or <code>http://host:3128</code>."
)


def proxy_field() -> forms.CharField:
    """Return a field for a proxy, which never shows what was typed."""
    return forms.CharField(
        max_length=500,
        required=False,
        label="Outbound proxy",
        help_text=PROXY_HELP,
        # It may hold a password: not shown again either.
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class SecretForm(forms.Form):
    """An account given by its secret instead of a login in the browser."""

    kind = forms.ChoiceField(choices=SECRETS, label="What you have")
    name = forms.CharField(
        max_length=100,
        help_text="How the console calls it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    secret = forms.CharField(
        max_length=LONGEST_SECRET,
        label="Secret",
        help_text="The key, the token, or the whole text of the file. It is stored encrypted "
        "and never shown again.",
        widget=SecretArea(attrs={"rows": 4, "autocomplete": "off", "spellcheck": "false"}),
    )
    proxy = proxy_field()
    agree = forms.BooleanField(label=AGREE, required=False)

    def clean(self) -> dict[str, Any] | None:
        """Ask for the tick where the secret is a person's login and not an API key."""
        data = super().clean() or {}
        if data.get("agree"):
            return data
        if data.get("kind") != Kind.API_KEY:
            self.add_error("agree", "Tick the box first, if you may.")
        elif data.get("secret", "").strip().startswith(PERSONAL):
            self.add_error("kind", LOOKS_PERSONAL)
        return data


class EndpointFields(forms.Form):
    """Where a compatible endpoint is and how it is spoken to."""

    base_url = forms.CharField(
        max_length=500,
        label="Base URL",
        help_text="The part before <code>/v1/messages</code>.",
        widget=forms.URLInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    auth = forms.ChoiceField(
        label="Secret is sent as",
        choices=(
            (Auth.BEARER.value, "Authorization: Bearer"),
            (Auth.API_KEY.value, "x-api-key"),
            (Auth.NONE.value, "there is none"),
        ),
    )
    secret = forms.CharField(
        max_length=4096,
        required=False,
        label="Secret",
        help_text="It is stored encrypted and never shown again.",
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    model_map = forms.CharField(
        max_length=20_000,
        required=False,
        label="Models",
        help_text="A line each: what clients ask for, and what the endpoint calls it, as in "
        "<code>claude-opus-* = glm-5.3</code>. An exact name goes before a pattern, a longer "
        "pattern before a shorter one. Other models are asked for as they are if the endpoint "
        "lists them; without a map and a list, all are.",
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off", "spellcheck": "false"}),
    )
    forwards_betas = forms.BooleanField(
        label="Forward the clients’ anthropic-beta header", required=False, initial=True
    )
    proxy = proxy_field()

    def clean_model_map(self) -> dict[str, str]:
        """Read the lines."""
        try:
            return read_map(self.cleaned_data["model_map"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None


class EndpointForm(EndpointFields):
    """A new compatible endpoint, filled in from a preset where one was chosen."""

    kind = forms.CharField(widget=forms.HiddenInput, initial=Kind.COMPATIBLE.value)
    preset = forms.ChoiceField(
        choices=[("", ""), *((preset.key, preset.label) for preset in ALL)],
        required=False,
        widget=forms.HiddenInput,
    )
    name = forms.CharField(
        max_length=100,
        help_text="How the console calls it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class RemoveForm(forms.Form):
    """The typed confirmation of a removal."""

    name = forms.CharField(
        label="Type the account’s name to confirm",
        strip=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, wanted: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wanted = wanted

    def clean_name(self) -> str:
        """Refuse any other name."""
        if self.cleaned_data["name"].strip() != self.wanted.strip():
            raise forms.ValidationError("This is not the account’s name. Nothing was removed.")
        return self.wanted
