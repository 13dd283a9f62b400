"""How the console writes moments (relative in the text, absolute on hover), spans and figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django import template
from django.utils import timezone
from django.utils.html import format_html

register = template.Library()

# Within which a day of the week names the day.
WEEK = timedelta(days=6)
UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@register.simple_tag
def moment(value: datetime | None, missing: str = "never") -> str:
    """Return a `<time>` that says how far away `value` is; `missing` when there is none.

    console.js turns the absolute time into the viewer's zone.
    """
    # A template makes "" of what is behind a None.
    if not value:
        return missing
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        utc.isoformat(timespec="seconds"),
        f"{utc:%a %d %b %Y %H:%M} UTC",
        distance((value - timezone.now()).total_seconds()),
    )


@register.simple_tag
def clock(value: datetime) -> str:
    """Return a `<time>` with the time of day, and the day unless that is today.

    console.js writes it in the viewer's zone.
    """
    utc, today = value.astimezone(UTC), timezone.now().astimezone(UTC)
    day = "" if utc.date() == today.date() else "%a " if abs(utc - today) < WEEK else "%d %b "
    return format_html(
        '<time datetime="{}" title="{}" data-clock>{} UTC</time>',
        utc.isoformat(timespec="seconds"),
        f"{utc:%a %d %b %Y %H:%M} UTC",
        utc.strftime(f"{day}%H:%M"),
    )


def distance(seconds: float) -> str:
    """Say how far away a moment is: `in 2 h 10 min`, `3 d ago`, `now` within five seconds."""
    if abs(seconds) < 5:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


@register.filter
def span(seconds: float) -> str:
    """Write a length of time with its two largest units."""
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    for place, (unit, size) in enumerate(UNITS):
        if left < size:
            continue
        text = f"{left // size} {unit}"
        smaller = UNITS[place + 1 :]
        if smaller and (rest := left % size // smaller[0][1]):
            text += f" {rest} {smaller[0][0]}"
        return text
    return f"{left} s"


@register.filter
def figure(value: Decimal) -> str:
    """Write a number without the zeros behind it, and never with an exponent."""
    return f"{value.normalize():f}"
