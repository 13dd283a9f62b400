"""The forms of the usage page and of prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.utils import timezone

from usage import asking, reports
from usage.reports import BadReport, Question

METRICS = {
    "requests": "Requests",
    "errors": "Errors",
    "tokens": "Tokens",
    "cost": "Cost",
    "cache": "Prompt cache",
    "first_byte": "Time to the first byte",
    "duration": "Duration",
}
GROUPS = {
    "hour": "Hour",
    "day": "Day",
    "week": "Week",
    "month": "Month",
    "account": "Account",
    "organization": "Organisation",
    "key": "Key",
    "model": "Model",
    "provider": "Kind of account",
    "endpoint": "Endpoint",
    "status": "Status",
    "ended": "How it ended",
    "verdict": "Verdict",
    "session": "Session",
}
NUMBER = {"step": "any", "inputmode": "decimal"}


def usd(label: str, initial: int | None = None) -> forms.DecimalField:
    """Return a field for a price, as exact as its column."""
    return forms.DecimalField(
        label=label,
        initial=initial,
        min_value=0,
        max_digits=12,
        decimal_places=6,
        widget=forms.NumberInput(attrs=NUMBER),
    )


class DayInput(forms.DateInput):
    """A day, by the browser's own calendar."""

    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


class ReportForm(forms.Form):
    """What the page shows; days are days of the zone, and both are included."""

    metric = forms.ChoiceField(choices=METRICS.items(), label="Show")
    group = forms.ChoiceField(choices=GROUPS.items(), label="By")
    since = forms.DateField(label="From", widget=DayInput())
    until = forms.DateField(label="To", widget=DayInput())
    zone = forms.ChoiceField(label="Time zone")

    def __init__(self, data: Any = None, *, now: datetime | None = None) -> None:
        now = now or timezone.now()
        first = {"metric": "requests", "group": "day", "zone": "UTC"}
        # Of sessions there are many.
        back = 0 if (data or {}).get("group") == "session" else 6
        days = {"since": (now - timedelta(days=back)).date(), "until": now.date()}
        given = {name: data[name] for name in data or () if data[name] != ""}
        super().__init__(first | days | given)
        self.fields["zone"].choices = [(name, name) for name in sorted(asking.zones())]  # type: ignore[attr-defined]

    def question(self) -> Question | None:
        """Return what is asked; None, with the form's errors, for what cannot be."""
        if not self.is_valid():
            return None
        told = self.cleaned_data
        try:
            zone = asking.zone_named(told["zone"])
            return asking.question(
                told["metric"],
                told["group"],
                since=asking.midnight(told["since"], zone),
                until=asking.midnight(told["until"] + timedelta(days=1), zone),
                zone=told["zone"],
                filters=self.filters,
            )
        except (BadReport, OverflowError) as error:
            self.refuse(error)
            return None

    def refuse(self, error: Exception) -> None:
        """Say what is wrong beside the field that it is about."""
        name = getattr(error, "field", None)
        self.add_error(name if name in self.fields else None, str(error))

    @property
    def filters(self) -> dict[str, str]:
        """Return the filters of the address, which are no fields of the form."""
        return {name: str(self.data[name]) for name in reports.FILTERS if name in self.data}


class PriceForm(forms.Form):
    """What a model costs from a day on."""

    model = forms.RegexField(
        r"^[!-~]+$",
        max_length=128,
        help_text="A name, or its beginning with <code>*</code>: <code>glm-*</code>",
    )
    valid_from = forms.DateField(label="From (UTC)", widget=DayInput())
    prompt_from = forms.IntegerField(
        label="For prompts of at least (tokens)", min_value=0, max_value=10**9, initial=0
    )
    input = usd("Input, USD per million tokens")
    output = usd("Output")
    cache_read = usd("Cache read")
    cache_write_5m = usd("Cache write, 5 minutes")
    cache_write_1h = usd("Cache write, 1 hour")
    web_search = usd("USD per thousand searches", initial=10)

    def told(self) -> dict[str, Any]:
        """Return the values for `pricelist.put`."""
        given = dict(self.cleaned_data)
        given["valid_from"] = asking.midnight(given["valid_from"], ZoneInfo("UTC"))
        return given


class RepriceForm(forms.Form):
    """Of which records the prices in force shall count."""

    since = forms.DateField(label="Records since (UTC)", widget=DayInput())
    only_unknown = forms.BooleanField(
        required=False, initial=True, label="Only those without a price"
    )

    def since_moment(self) -> datetime:
        """Return when the first day begins."""
        return datetime.combine(self.cleaned_data["since"], datetime.min.time(), UTC)
