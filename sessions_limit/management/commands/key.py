"""manage.py key: create, list, change, rotate, switch and revoke relay keys."""

from __future__ import annotations

import json
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from lib import tables
from sessions_limit import issuing, terms
from sessions_limit.issuing import KeyRevoked
from sessions_limit.management import finding
from sessions_limit.models import ClientKey
from sessions_limit.terms import BadTerms

BY = "command line"
COLUMNS = ("id", "name", "hint", "state", "labels", "created_at", "expires_at", "last_used_at")
TIMES = ("created_at", "expires_at", "revoked_at", "last_used_at")
# The options for the terms of a key; each can be cleared by its name.
MANY = {
    "label": ("labels", "only accounts with this label serve it"),
    "model": ("model_patterns", "only models of this name; * and ? stand for anything"),
    "network": ("networks", "only from this network, such as 10.0.0.0/8"),
}
ONE = {
    "owner": ("owner", "whose key it is"),
    "expires": ("expires_at", "until when it works, such as 2030-12-31T18:00:00+01:00"),
    "account": ("pinned_account", "the one account that serves it, by its id or name"),
    "requests-per-minute": ("requests_per_minute", "the most requests in a minute"),
    "tokens-per-minute": ("tokens_per_minute", "the most tokens in a minute"),
    "max-in-flight": ("max_in_flight", "the most requests under way at a time"),
    "max-sessions": ("max_sessions", "the most sessions at a time; 0: none, -1: any number"),
    "tokens-per-day": ("tokens_per_day", "the most tokens in a day"),
    "tokens-per-week": ("tokens_per_week", "the most tokens in a week"),
    "tokens-per-month": ("tokens_per_month", "the most tokens in a month"),
    "usd-per-day": ("usd_per_day", "the most that it may cost in a day, in USD"),
    "usd-per-week": ("usd_per_week", "the most that it may cost in a week, in USD"),
    "usd-per-month": ("usd_per_month", "the most that it may cost in a month, in USD"),
    "time-zone": ("time_zone", "whose days, weeks and months these are, such as Europe/Berlin"),
}
PASSTHROUGH = "passthrough"
OPTIONS = {term: option for option, (term, _) in (MANY | ONE).items()}
VERBS = {
    "update": "change what is given of a key",
    "rotate": "give a key a new secret and show it, once",
    "enable": "let a disabled key open the relay again",
    "disable": "let a key open nothing until it is enabled",
    "revoke": "end a key for good",
}


class Command(BaseCommand):
    """Manage the keys that open the relay."""

    help = "Create, list, change, rotate, switch on and off, or revoke relay keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and show it, once")
        create.add_argument("--name", required=True)
        _add_terms(create)
        verbs.add_parser("list", help="show all keys")
        for verb, what in VERBS.items():
            one = verbs.add_parser(verb, help=what)
            one.add_argument("key", help="the key's id or, if only one has it, its name")
            if verb == "update":
                one.add_argument("--name", help="its new name")
                _add_terms(one)
                one.add_argument(
                    "--clear",
                    action="append",
                    default=[],
                    choices=(*MANY, *ONE),
                    help="take this term away; may be given several times",
                )
            if verb == "rotate":
                one.add_argument(
                    "--overlap",
                    type=float,
                    default=issuing.OVERLAP / timedelta(hours=1),
                    metavar="HOURS",
                    help="how long the old secret still works; 0: it ends at once",
                )
        for verb_parser in verbs.choices.values():
            verb_parser.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb; what goes wrong is said in a sentence, with exit code 1."""
        try:
            getattr(self, f"_{options['verb']}")(options)
        except BadTerms as error:
            told = (f"--{OPTIONS.get(name, name)}: {text}" for name, text in error.errors.items())
            raise CommandError(" ".join(told)) from None
        except KeyRevoked as error:
            raise CommandError(str(error)) from None

    def _create(self, options: dict[str, Any]) -> None:
        row, text = issuing.create(by=BY, **terms.checked(name=options["name"], **_given(options)))
        self._show(options, row, text)

    def _list(self, options: dict[str, Any]) -> None:
        rows = [_row(key) for key in ClientKey.objects.order_by("id")]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        shown = [row | {"labels": ", ".join(row["labels"])} for row in rows]
        for line in tables.lines(COLUMNS, shown):
            self.stdout.write(line)

    def _update(self, options: dict[str, Any]) -> None:
        given = _given(options)
        if options["name"] is not None:
            given["name"] = options["name"]
        for option in options["clear"]:
            term, _ = (MANY | ONE)[option]
            if term in given:
                raise CommandError(f"--{option} is given and cleared")
            given[term] = None
        if not given:
            raise CommandError("nothing to change; see: manage.py key update --help")
        key = issuing.update(finding.key(options["key"]), by=BY, **terms.checked(**given))
        self._say(options, key, "updated")

    def _rotate(self, options: dict[str, Any]) -> None:
        key, most = finding.key(options["key"]), issuing.LONGEST_OVERLAP / timedelta(hours=1)
        # NaN is in no range.
        if not 0 <= options["overlap"] <= most:
            raise CommandError(f"--overlap: hours from 0 to {most:.0f}")
        text = issuing.rotate(key, by=BY, overlap=timedelta(hours=options["overlap"]))
        key.refresh_from_db()
        self._show(options, key, text, previous_until=_row(key)["previous_until"])

    def _enable(self, options: dict[str, Any]) -> None:
        key = finding.key(options["key"])
        issuing.enable(key, by=BY)
        self._say(options, key, "enabled")

    def _disable(self, options: dict[str, Any]) -> None:
        key = finding.key(options["key"])
        issuing.disable(key, by=BY)
        self._say(options, key, "disabled")

    def _revoke(self, options: dict[str, Any]) -> None:
        key = finding.key(options["key"])
        if not issuing.revoke(key, by=BY):
            raise CommandError(f"key {key.pk} ({key.name}) is revoked already")
        self._say(options, key, "revoked")

    def _show(self, options: dict[str, Any], key: ClientKey, text: str, **more: Any) -> None:
        """Show a secret, in this one answer only."""
        if options["json"]:
            self.stdout.write(json.dumps({"id": key.pk, "name": key.name, "key": text} | more))
            return
        self.stdout.write(f"{text}\n")
        self.stderr.write("Keep it: it is not shown again.")

    def _say(self, options: dict[str, Any], key: ClientKey, done: str) -> None:
        key.refresh_from_db()
        told = json.dumps(_row(key)) if options["json"] else f"{done} key {key.pk} ({key.name})"
        self.stdout.write(told)


def _add_terms(parser: ArgumentParser) -> None:
    for option, (term, what) in MANY.items():
        what = f"{what}; may be given several times"
        parser.add_argument(f"--{option}", dest=term, action="append", help=what)
    for option, (term, what) in ONE.items():
        parser.add_argument(f"--{option}", dest=term, help=what)
    parser.add_argument(
        f"--{PASSTHROUGH}",
        action=BooleanOptionalAction,
        help="whether its holder may use a claude.ai login of their own through the relay",
    )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the terms that were given."""
    return {term: options[term] for term in (*OPTIONS, PASSTHROUGH) if options[term] is not None}


def _row(key: ClientKey) -> dict[str, Any]:
    facts = {"id": key.pk, "name": key.name, "hint": key.hint, "state": key.state}
    columns = {column: getattr(key, column) for column in (*terms.KEPT, *TIMES)}
    told = terms.told(columns | {"previous_until": key.overlaps_until})
    return facts | told | {"last_addresses": key.last_addresses}
