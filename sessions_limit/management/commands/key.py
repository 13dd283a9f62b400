"""manage.py key: create, list and revoke relay keys."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from lib import names, tables
from sessions_limit import keys
from sessions_limit.models import ClientKey

BY = "command line"
COLUMNS = ("id", "name", "hint", "state", "labels", "created_at", "expires_at", "last_used_at")


class Command(BaseCommand):
    """Manage the keys that open the relay."""

    help = "Create, list or revoke relay keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and show it, once")
        create.add_argument("--name", required=True)
        create.add_argument(
            "--label",
            action="append",
            default=[],
            help="only accounts with this label serve the key; may be given several times",
        )
        verbs.add_parser("list", help="show all keys")
        revoke = verbs.add_parser("revoke", help="end a key for good")
        revoke.add_argument("key", help="the key's id or, if only one has it, its name")
        for verb in verbs.choices.values():
            verb.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb."""
        getattr(self, f"_{options['verb']}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        name = names.plain(options["name"])
        if not 0 < len(name) <= 100:
            raise CommandError("--name: a key needs a name of 1 to 100 characters")
        try:
            row, text = keys.create(name=name, by=BY, labels=options["label"])
        except ValueError as error:
            raise CommandError(f"--label: {error}") from None
        if options["json"]:
            self.stdout.write(json.dumps({"id": row.pk, "name": row.name, "key": text}))
            return
        self.stdout.write(f"{text}\n")
        self.stderr.write("Keep it: it is not shown again.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = [_row(key) for key in ClientKey.objects.order_by("id")]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        shown = [row | {"labels": ", ".join(row["labels"])} for row in rows]
        for line in tables.lines(COLUMNS, shown):
            self.stdout.write(line)

    def _revoke(self, options: dict[str, Any]) -> None:
        key = _find(options["key"])
        if not keys.revoke(key, by=BY):
            raise CommandError(f"key {key.pk} ({key.name}) is revoked already")
        key.refresh_from_db()
        if options["json"]:
            self.stdout.write(json.dumps(_row(key)))
            return
        self.stdout.write(f"revoked key {key.pk} ({key.name})")


def _find(text: str) -> ClientKey:
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = list(ClientKey.objects.filter(pk=int(text)))
    else:
        found = list(ClientKey.objects.filter(name=text, revoked_at=None)[:2])
    if len(found) > 1:
        raise CommandError(f"several keys are named {text!r}; use the id")
    if not found:
        raise CommandError(f"there is no key {text!r}; see: manage.py key list")
    return found[0]


def _row(key: ClientKey) -> dict[str, Any]:
    times = {
        name: (moment := getattr(key, name)) and moment.isoformat()
        for name in ("created_at", "expires_at", "last_used_at", "revoked_at")
    }
    facts = {"id": key.pk, "name": key.name, "hint": key.hint, "state": key.state}
    return facts | {"labels": key.labels} | times
