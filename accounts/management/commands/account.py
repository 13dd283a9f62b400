"""manage.py account: list, add, link, enable, disable, refresh and remove accounts."""

from __future__ import annotations

import json
import secrets
import sys
from argparse import ArgumentParser
from datetime import datetime
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import adding, lifecycle, linking
from accounts.errors import AccountError
from accounts.models import Account
from accounts.states import Kind
from lib import tables

BY = "command line"
COLUMNS = ("id", "name", "kind", "status", "reason", "limited_until", "expires_at", "last_used_at")


class Command(BaseCommand):
    """Manage the upstream accounts of the pool."""

    help = "List, add, link, enable, disable, refresh or remove upstream accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show all accounts")
        add = verbs.add_parser("add", help="add an account; its secret is read from standard input")
        add.add_argument("--kind", required=True, choices=[kind.value for kind in Kind])
        add.add_argument("--name", default="", help="its name; a login's default is its e-mail")
        link = verbs.add_parser(
            "link", help="link a Claude login: shows an address, reads the code"
        )
        link.add_argument("--name", default="", help="its name; the default is its e-mail")
        for verb in ("enable", "disable", "refresh", "remove"):
            one = verbs.add_parser(verb, help=f"{verb} an account")
            one.add_argument("account", help="the account's id or name")
            if verb == "remove":
                one.add_argument("--yes", action="store_true", help="do not ask")
        for verb_parser in verbs.choices.values():
            verb_parser.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb; what goes wrong is said in a sentence, with exit code 1."""
        verb = getattr(self, f"_{options['verb']}")
        try:
            verb(options)
        except AccountError as error:
            raise CommandError(str(error)) from None

    def _list(self, options: dict[str, Any]) -> None:
        accounts = Account.objects.filter(deleted_at=None).select_related("credential")
        rows = [_row(account) for account in accounts]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        for line in tables.lines(COLUMNS, rows):
            self.stdout.write(line)

    def _add(self, options: dict[str, Any]) -> None:
        kind = Kind(options["kind"])
        if kind is Kind.OAUTH:
            text = _read("Paste the credentials file, then Ctrl-D:")
            account = adding.add_credentials_file(options["name"], text, by=BY)
            self.stderr.write(f"Warning: {adding.SHARED_LOGIN}")
        else:
            account = adding.add_secret(kind, options["name"], _read_secret(), by=BY)
        self._say(options, account, "added")

    def _link(self, options: dict[str, Any]) -> None:
        session = secrets.token_urlsafe(32)
        flow = linking.begin(by=BY, session=session)
        # Standard output carries nothing but the answer, so that --json stays one document.
        say = self.stderr if options["json"] else self.stdout
        say.write(f"Open this address, sign in and approve:\n{flow.url}\nThen paste the code here:")
        say.flush()
        linking.complete(flow.id, sys.stdin.readline(), session=session)
        account = linking.confirm(flow.id, session=session, by=BY, name=options["name"])
        self._say(options, account, "linked")

    def _enable(self, options: dict[str, Any]) -> None:
        account = lifecycle.enable(_find(options["account"]), by=BY)
        self._say(options, account, "enabled")

    def _disable(self, options: dict[str, Any]) -> None:
        account = lifecycle.disable(_find(options["account"]), by=BY)
        self._say(options, account, "disabled")

    def _refresh(self, options: dict[str, Any]) -> None:
        account = lifecycle.refresh(_find(options["account"]), by=BY)
        self._say(options, account, "refreshed")

    def _remove(self, options: dict[str, Any]) -> None:
        account = _find(options["account"])
        if not options["yes"]:
            self.stderr.write(f"This destroys the secret of {account.name}. Type yes to go on:")
            if sys.stdin.readline().strip() != "yes":
                raise CommandError("Nothing was removed.")
        row = _row(account)
        lifecycle.remove(account, by=BY)
        if options["json"]:
            self.stdout.write(json.dumps(row | {"removed": True}))
        else:
            self.stdout.write(f"{account.name} is removed and its secret destroyed.")

    def _say(self, options: dict[str, Any], account: Account, done: str) -> None:
        account = Account.objects.select_related("credential").get(pk=account.pk)
        if options["json"]:
            self.stdout.write(json.dumps(_row(account)))
            return
        reason = f" ({account.reason})" if account.reason else ""
        status = account.status.replace("_", " ")
        self.stdout.write(f"{account.name} (id {account.pk}) is {done}: {status}{reason}.")


def _find(text: str) -> Account:
    accounts = Account.objects.filter(deleted_at=None)
    found = accounts.filter(name=text).first()
    if found is None and text.isascii() and text.isdigit() and len(text) < 19:
        found = accounts.filter(pk=int(text)).first()
    if found is None:
        raise CommandError(f"There is no account {text!r}. `account list` shows them all.")
    return found


def _row(account: Account) -> dict[str, Any]:
    """Return what is shown of an account; never anything secret."""
    credential = account.credential
    return {
        "id": account.pk,
        "name": account.name,
        "kind": account.kind,
        "status": account.status,
        "reason": account.reason,
        "limited_until": _iso(account.limited_until),
        "cooldown_until": _iso(account.cooldown_until),
        "expires_at": _iso(credential.expires_at if credential else None),
        "grant_ends_at": _iso(account.grant_ends_at),
        "last_used_at": _iso(account.last_used_at),
        "email": account.email,
        "organization": account.organization_name,
        "plan": account.plan,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _read_secret() -> str:
    # On a terminal the secret is not echoed; it is never an argument, which `ps` would show.
    return getpass("Secret: ") if sys.stdin.isatty() else _read("")


def _read(prompt: str) -> str:
    if sys.stdin.isatty():
        sys.stderr.write(f"{prompt}\n")
    return sys.stdin.read(adding.FILE_LIMIT + 1)
