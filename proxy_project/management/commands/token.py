"""manage.py token: create, list and revoke tokens of the admin API."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from lib import names, tables
from proxy_project import tokens
from proxy_project.models import AdminToken

BY = "command line"
COLUMNS = ("id", "name", "hint", "state", "created_at", "expires_at", "last_used_at")
MOST_DAYS = 3650


class Command(BaseCommand):
    """Manage the tokens that open the admin API."""

    help = "Create, list or revoke tokens of the admin API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token and show it, once")
        create.add_argument("--name", required=True)
        create.add_argument("--expires", type=int, metavar="DAYS", help="its life; without: no end")
        verbs.add_parser("list", help="show all tokens")
        revoke = verbs.add_parser("revoke", help="end a token for good")
        revoke.add_argument("token", help="the token's id or, if only one has it, its name")
        for verb in verbs.choices.values():
            verb.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb."""
        getattr(self, f"_{options['verb']}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        name, days = names.plain(options["name"]), options["expires"]
        if not 0 < len(name) <= 100:
            raise CommandError("--name: a token needs a name of 1 to 100 characters")
        if days is not None and not 0 < days <= MOST_DAYS:
            raise CommandError(f"--expires: a token lives 1 to {MOST_DAYS} days")
        end = timezone.now() + timedelta(days=days) if days else None
        row, text = tokens.create(name, by=BY, expires_at=end)
        if options["json"]:
            self.stdout.write(json.dumps({"id": row.pk, "name": row.name, "token": text}))
            return
        self.stdout.write(f"{text}\n")
        self.stderr.write("Keep it: it is not shown again.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = [_row(token) for token in AdminToken.objects.order_by("id")]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        for line in tables.lines(COLUMNS, rows):
            self.stdout.write(line)

    def _revoke(self, options: dict[str, Any]) -> None:
        token = _find(options["token"])
        if not tokens.revoke(token, by=BY):
            raise CommandError(f"token {token.pk} ({token.name}) is revoked already")
        token.refresh_from_db()
        if options["json"]:
            self.stdout.write(json.dumps(_row(token)))
            return
        self.stdout.write(f"revoked token {token.pk} ({token.name})")


def _find(text: str) -> AdminToken:
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = list(AdminToken.objects.filter(pk=int(text)))
    else:
        found = list(AdminToken.objects.filter(name=text, revoked_at=None)[:2])
    if len(found) > 1:
        raise CommandError(f"several tokens are named {text!r}; use the id")
    if not found:
        raise CommandError(f"there is no token {text!r}; see: manage.py token list")
    return found[0]


def _row(token: AdminToken) -> dict[str, Any]:
    times = {
        name: (moment := getattr(token, name)) and moment.isoformat()
        for name in ("created_at", "expires_at", "last_used_at", "revoked_at")
    }
    return {"id": token.pk, "name": token.name, "hint": token.hint, "state": token.state()} | times
