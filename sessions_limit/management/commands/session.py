"""manage.py session: list and revoke the sessions of clients."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from lib import tables
from sessions_limit import revoking, showing
from sessions_limit.identity import SHAPE
from sessions_limit.management import finding
from sessions_limit.models import ClientSession
from sessions_limit.revoking import NoAddress

BY = "command line"
COLUMNS = (
    "id",
    "key_name",
    "client",
    "session",
    "account_name",
    "started_at",
    "last_seen_at",
    "requests",
    "in_flight",
    "ended",
)


class Command(BaseCommand):
    """Look after the sessions of clients."""

    help = "List the sessions of clients, or revoke them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="show the living sessions, the last seen first")
        listing.add_argument("--key", help="only those of this key: its id or its name")
        listing.add_argument("--all", action="store_true", help="also those that have ended")
        revoke = verbs.add_parser("revoke", help="end sessions and refuse them for a while")
        which = revoke.add_mutually_exclusive_group(required=True)
        which.add_argument("session", nargs="?", help="a session: its id, or the client's own")
        which.add_argument("--key", help="all of a key: its id or its name; the key stays good")
        which.add_argument("--address", help="all of an address; of IPv6 all of its /64")
        which.add_argument("--all", action="store_true", help="all there are")
        for verb in verbs.choices.values():
            verb.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb; what goes wrong is said in a sentence, with exit code 1."""
        getattr(self, f"_{options['verb']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        key = None if options["key"] is None else finding.key(options["key"]).pk
        state = showing.ALL if options["all"] else showing.LIVING
        found = showing.shown(showing.found(key=key, state=state))
        rows = [_row(one) for one in found]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        for line in tables.lines(COLUMNS, rows):
            self.stdout.write(line)

    def _revoke(self, options: dict[str, Any]) -> None:
        told: dict[str, Any] = {}
        if options["session"] is None:
            count = _revoke_many(options)
        else:
            row = _session(options["session"])
            count = revoking.revoke_session(row, by=BY)
            told = _row(showing.shown(showing.found(state=showing.ALL).filter(pk=row.pk))[0])
        if options["json"]:
            self.stdout.write(json.dumps({"revoked": count} | told))
            return
        self.stdout.write(f"revoked {count} session{'' if count == 1 else 's'}")


def _revoke_many(options: dict[str, Any]) -> int:
    if options["all"]:
        return revoking.revoke_all(by=BY)
    if options["key"] is not None:
        return revoking.revoke_sessions_of_key(finding.key(options["key"]), by=BY)
    try:
        return revoking.revoke_sessions_of_address(options["address"], by=BY)
    except NoAddress as error:
        raise CommandError(f"--address: {error}") from None


def _session(text: str) -> ClientSession:
    """Return the session with this id, or the one living session that its client calls so."""
    found: list[ClientSession] = []
    if SHAPE.fullmatch(text):
        rows = ClientSession.objects
        found = list(rows.filter(uid=text)) or list(rows.filter(session=text, ended_at=None)[:2])
    if len(found) > 1:
        raise CommandError(f"several sessions are called {text!r}; use the id")
    if not found:
        raise CommandError(f"there is no session {text!r}; see: manage.py session list --all")
    return found[0]


def _row(one: showing.Shown) -> dict[str, Any]:
    facts = showing.facts(one)
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in facts.items()
    }
