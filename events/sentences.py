"""An event in one plain sentence, short enough for the notification of a phone; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any

from lib import names

LONGEST, LONGEST_PART = 300, 80
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*")
NOUNS = {"pool": "The pool", "usage": "The usage records", "relay": "The relay"}

# For each kind the first sentence of which every part is known. `{who}` is whom it concerns;
# the other parts are fields of the event.
SENTENCES: dict[str, tuple[str, ...]] = {
    "account.limit": (
        "{who} is rate limited until {limited_until}: {reason}.",
        "{who} is rate limited: {reason}.",
    ),
    "account.recover": ("{who} may be used again.",),
    "account.reject": (
        "{who} is invalid: {reason}. Somebody must look after it.",
        "{who} is invalid. Somebody must look after it.",
    ),
    "account.idle": ("{who} was set aside: nobody used it for a long time.",),
    "account.wake": ("{who} is back in the pool: it was needed.",),
    "account.disable": ("{who} was disabled by {by}.",),
    "account.enable": ("{who} was enabled by {by}.",),
    "account.relink": ("{who} was linked again by {by}.",),
    "account.heal": ("{who} works again.",),
    "account.retry": ("{who} was tried again and works.",),
    "account.rested": ("{who} rests for {seconds} s in one process: it failed, others did not.",),
    "account.cooldown": ("{who} rests for {seconds} s: {reason}.", "{who} rests for {seconds} s."),
    "account.refreshed": ("{who} has a fresh token.",),
    "account.refresh_failed": ("The token of {who} could not be refreshed: {why}.",),
    "account.linked": ("{who} was linked by {by}.",),
    "account.restored": ("{who} was added from a back-up by {by}; enable it to check it.",),
    "account.removed": ("{who} was removed by {by}.",),
    "account.merged": ("{who} was merged with another row of the same account.",),
    "account.updated": ("The settings of {who} were changed by {by}.",),
    "account.tested": ("{who} was tested by {by}.",),
    "account.cleared": ("The limits of {who} were cleared by {by}.",),
    "account.limit_shortened": ("{who} returns earlier than it was told, {limited_until}.",),
    "account.cut": ("What {who} still served was cut off by {by}.",),
    "account.purged": ("What was left of {who} is deleted.",),
    "account.endpoint_changed": ("The endpoint of {who} was changed by {by}.",),
    "account.near_limit": (
        "{who} has used {percent} % of its window {window} (resets {reset_at}).",
        "{who} has used {percent} % of its window {window}.",
        "{who} is near a limit.",
    ),
    "account.grant_ending": (
        "The login of {who} ends {ends_at}. Link it again before then.",
        "The login of {who} ends soon. Link it again.",
    ),
    "account.profile_changed": ("The profile of {who} has changed.",),
    "account.organization_changed": ("{who} belongs to another organisation now.",),
    "account.profile_failed": ("The profile of {who} could not be read: {why}.",),
    "account.poll_failed": ("{who} could not be asked about its use: {why}.",),
    "pool.exhausted": (
        "No account can serve requests ({counts}). The next one returns {returns_at}.",
        "No account can serve requests ({counts}). None returns by itself.",
        "No account can serve requests.",
    ),
    "pool.recovered": ("The pool serves requests again, after {minutes} min.",),
    "pool.degraded": ("{invalid} of {total} accounts are invalid. Somebody must look after them.",),
    "pool.healed": ("Most accounts of the pool are valid again, after {minutes} min.",),
    "limiter.degraded": (
        "Sessions could not be counted together, as Redis was away; each process decided alone.",
    ),
    "limiter.restored": ("Sessions are counted together again.",),
    "key.create": ("{who} was created by {by}.",),
    "key.update": ("The terms of {who} were changed by {by}.",),
    "key.enable": ("{who} was enabled by {by}.",),
    "key.disable": ("{who} was disabled by {by}.",),
    "key.rotate": (
        "{who} has a new secret, made by {by}; the old one works until {previous_until}.",
        "{who} has a new secret, made by {by}; the old one works no more.",
    ),
    "key.revoke": ("{who} was revoked by {by}.",),
    "key.budget_near": (
        "{who} has used {percent} % of its {budget} a {period} (renewed {reset_at}).",
        "{who} has nearly used up a budget.",
    ),
    "key.budget_spent": (
        "{who} has used up its {budget} a {period}: it is refused until {reset_at}.",
        "{who} has used up a budget.",
    ),
    "session.revoke": ("{who} of {client} was revoked by {by}.",),
    "session.revoke_of": ("All sessions of {who} ({count}) were revoked by {by}.",),
    "session.revoke_all": ("All sessions ({count}) were revoked by {by}.",),
    "token.create": ("An admin token was created by {by}: {name}.",),
    "token.revoke": ("An admin token was revoked by {by}: {name}.",),
    "credentials.rotated": ("{resealed} secrets were sealed anew by {by}.",),
    "admin.added": ("{who} was added by {by} in Django admin.",),
    "admin.changed": ("{who} was changed by {by} in Django admin.",),
    "admin.deleted": ("{who} was deleted by {by} in Django admin.",),
    "operator.created": ("The operator {name} was created.",),
    "price.set": ("The price of {name} was set by {by}.",),
    "price.removed": ("The price of {name} was removed by {by}.",),
    "price.applied": ("Prices were put on the records since {since} by {by}.",),
    "usage.lost": ("{count} records were lost.",),
    "alert.failed": ("An alert ({kind_lost}) could not be sent to {who}: {error}.",),
    "channel.created": ("{who} was created by {by}.",),
    "channel.updated": ("{who} was changed by {by}.",),
    "channel.enabled": ("{who} was enabled by {by}.",),
    "channel.disabled": ("{who} gets no more alerts: {why}.", "{who} gets no more alerts."),
    "channel.removed": ("{who} was removed by {by}.",),
    "channel.tested": ("{who} was tested by {by}: {outcome}.",),
    "channel.secret_renewed": ("{who} has a new signing secret, made by {by}.",),
    "rule.created": ("{who} was created by {by}.",),
    "rule.updated": ("{who} was changed by {by}.",),
    "rule.removed": ("{who} was removed by {by}.",),
}


def say(kind: str, subject: str, data: Mapping[str, Any], *, by: str, at: datetime) -> str:
    """Return the sentence for an event; one that nobody has written a sentence for is named."""
    known = {name: _words(value, at) for name, value in data.items()}
    known |= {"who": _who(subject, known.get("name", "")), "by": _words(by, at)}
    if isinstance(used := data.get("utilization"), float) and 0 <= used < 100:
        known["percent"] = f"{100 * used:.0f}"
    for sentence in SENTENCES.get(kind, ()):
        if all(known.get(part) for part in _parts(sentence)):
            return sentence.format_map(known)[:LONGEST]
    reason = known.get("reason") or known.get("why") or ""
    return f"{known['who']}: {_words(kind, at)}{f' ({reason})' if reason else ''}."[:LONGEST]


def _who(subject: str, name: str) -> str:
    """Say whom an event concerns: "Account Ada", "The pool"."""
    noun, _, key = subject.partition(":")
    words = NOUNS.get(noun) or _cut(noun.replace("_", " ")).capitalize()
    return f"{words} {name or _cut(key)}".strip()


def _parts(sentence: str) -> Iterator[str]:
    return (name for _, name, _, _ in Formatter().parse(sentence) if name)


def _words(value: Any, at: datetime) -> str:
    """Return a field of an event as text; empty when it says nothing."""
    if isinstance(value, dict):
        parts = (f"{_words(n, at)} {key.replace('_', ' ')}" for key, n in value.items() if n)
        return _cut(", ".join(parts))
    if value is None or value == []:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and MOMENT.fullmatch(value):
        return _moment(value, at)
    return _cut(str(value))


def _moment(text: str, at: datetime) -> str:
    """Write a time, with its day unless that is today: "15:00 UTC", "21 Nov 15:00 UTC"."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return _cut(text)
    is_today = moment.date() == at.astimezone(UTC).date()
    return f"{moment:%H:%M} UTC" if is_today else f"{moment:%d %b %H:%M} UTC"


def _cut(text: str) -> str:
    shown = names.plain(text)
    return shown if len(shown) <= LONGEST_PART else f"{shown[: LONGEST_PART - 1]}…"
