"""What operators do with alert rules; each leaves an event."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db import transaction

from events import journal, rules
from events.errors import Refused, unique_name
from events.models import Channel, Rule

THROTTLE = 300
LONGEST_THROTTLE = 7 * 24 * 3600
MOST_PATTERNS = 50
PATTERN = re.compile(r"[A-Za-z0-9_.:*-]{1,128}")
SHOWN = ("name", "enabled", "kinds", "subjects", "throttle_seconds")


def create(
    name: str,
    channel: Channel,
    kinds: Sequence[str],
    *,
    by: str,
    subjects: Sequence[str] = (),
    throttle_seconds: int = THROTTLE,
) -> Rule:
    """Send the events that match to a channel from now on; raise Refused."""
    rule = Rule(name=name, channel=channel, throttle_seconds=throttle_seconds)
    rule.kinds, rule.subjects = _patterns("kinds", kinds), _patterns("subjects", subjects)
    _check(rule)
    with unique_name(), transaction.atomic():
        rule.save(force_insert=True)
        journal.record("rule.created", rule.subject, by=by, **_facts(rule))
    return rule


def create_preset(channel: Channel, *, by: str) -> Rule:
    """Send everything that needs somebody to a channel; raise Refused."""
    name = f"{channel.name[:75]}: what needs somebody"
    return create(name, channel, rules.NEEDS_SOMEBODY, by=by)


def update(rule: Rule, *, by: str, **changes: Any) -> Rule:
    """Change some of a rule's columns; the event tells what was and what is. Raise Refused."""
    with unique_name(), transaction.atomic():
        row = Rule.objects.select_for_update(of=("self",)).select_related("channel")
        found = row.filter(pk=rule.pk).first()
        if found is None:
            raise Refused("", f"{rule.name} was removed.")
        old = _facts(found)
        for column, value in changes.items():
            is_list = column in ("kinds", "subjects")
            setattr(found, column, _patterns(column, value) if is_list else value)
        _check(found)
        new = _facts(found)
        changed = [name for name in new if new[name] != old[name]]
        if not changed:
            return found
        found.save(update_fields=list(changes))
        journal.record(
            "rule.updated",
            found.subject,
            by=by,
            name=found.name,
            old={name: old[name] for name in changed},
            new={name: new[name] for name in changed},
        )
    return found


def remove(rule: Rule, *, by: str) -> bool:
    """Remove a rule; what it has put on its way still arrives."""
    with transaction.atomic():
        removed, _ = Rule.objects.filter(pk=rule.pk).delete()
        if removed:
            journal.record("rule.removed", f"rule:{rule.pk}", by=by, **_facts(rule))
    return bool(removed)


def _patterns(field: str, given: Sequence[str]) -> list[str]:
    """Return patterns without doubles, in their order."""
    found = list(dict.fromkeys(given))
    if len(found) > MOST_PATTERNS:
        raise Refused(field, f"No more than {MOST_PATTERNS} patterns.")
    for pattern in found:
        if not isinstance(pattern, str) or not PATTERN.fullmatch(pattern):
            raise Refused(
                field,
                "A pattern is made of letters, digits and . _ - : with * for any text, "
                "like account.* or account:7.",
            )
    return found


def _check(rule: Rule) -> None:
    if not rule.kinds:
        raise Refused("kinds", "Name at least one kind of event, or * for all.")
    if not 0 <= rule.throttle_seconds <= LONGEST_THROTTLE:
        raise Refused("throttle_seconds", "Between 0 and 604800 seconds (a week).")
    if rule.channel.removed_at is not None:
        raise Refused("channel", f"{rule.channel.name} was removed.")


def _facts(rule: Rule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in SHOWN} | {"channel": rule.channel.name}
