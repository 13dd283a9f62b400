"""manage.py account: list, show, add, link, test, enable, disable, clear, refresh, remove."""

from __future__ import annotations

import json
import secrets
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import asdict
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts import adding, checks, endpoints, grants, lifecycle, linking, showing
from accounts.errors import AccountError
from accounts.models import Account
from accounts.presets import PRESETS
from accounts.states import Auth, Kind
from lib import tables

BY = "command line"
MOST_EVENTS = 1000
ONE = {
    "show": "show one account in full",
    "history": "show what happened to an account, the latest first",
    "test": "try an account's credential with one free request",
    "enable": "put an account back into the pool",
    "disable": "take an account out of the pool",
    "clear": "end an account's limit or cool-down now",
    "refresh": "renew an account's token now",
    "remove": "remove an account and destroy its secret",
}
COLUMNS = ("id", "name", "kind", "status", "reason", "limited_until", "expires_at", "last_used_at")


class Command(BaseCommand):
    """Manage the upstream accounts of the pool."""

    help = "List, show, add, link, test, change or remove upstream accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show all accounts")
        add = verbs.add_parser("add", help="add an account; its secret is read from standard input")
        add.add_argument("--kind", required=True, choices=[kind.value for kind in Kind])
        add.add_argument("--name", default="", help="its name; a login's default is its e-mail")
        add.add_argument(
            "--restored", action="store_true", help="from a back-up: inactive until enabled"
        )
        _add_endpoint_arguments(add)
        link = verbs.add_parser(
            "link", help="link a Claude login: shows an address, reads the code"
        )
        link.add_argument("--name", default="", help="its name; the default is its e-mail")
        for verb, what in ONE.items():
            one = verbs.add_parser(verb, help=what)
            one.add_argument("account", help="the account's id or name")
            if verb == "remove":
                one.add_argument("--yes", action="store_true", help="do not ask")
            if verb == "disable":
                one.add_argument("--cut", action="store_true", help="end what it serves now")
            if verb == "history":
                one.add_argument("--limit", type=int, default=20, help="how many events")
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
        kind, name = Kind(options["kind"]), options["name"]
        proxy = _read_proxy() if options["proxy_stdin"] else ""
        more: dict[str, Any] = {"is_restored": options["restored"], "proxy": proxy}
        if kind is Kind.COMPATIBLE:
            account = adding.add_compatible(name, by=BY, **_endpoint(options), **more)
        elif kind is Kind.OAUTH:
            text = _read("Paste the credentials file, then Ctrl-D:")
            account = adding.add_credentials_file(name, text, by=BY, **more)
            self.stderr.write(f"Warning: {adding.SHARED_LOGIN}")
        else:
            account = adding.add_secret(kind, name, _read_secret(), by=BY, **more)
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

    def _show(self, options: dict[str, Any]) -> None:
        account = _find(options["account"])
        told = _row(account) | showing.facts(account, timezone.now())
        self._tell(options, told, showing.lines(account.name, told))

    def _history(self, options: dict[str, Any]) -> None:
        account = _find(options["account"])
        events = showing.history(account, min(max(1, options["limit"]), MOST_EVENTS))
        self._tell(options, events, map(showing.line, events))

    def _test(self, options: dict[str, Any]) -> None:
        result = checks.test(_find(options["account"]), by=BY)
        self._tell(options, asdict(result), [f"{result.sentence} ({result.ms} ms)"])
        if not result.ok:
            sys.exit(1)

    def _clear(self, options: dict[str, Any]) -> None:
        account = lifecycle.clear(_find(options["account"]), by=BY)
        self._say(options, account, "cleared")

    def _enable(self, options: dict[str, Any]) -> None:
        account = lifecycle.enable(_find(options["account"]), by=BY)
        self._say(options, account, "enabled")

    def _disable(self, options: dict[str, Any]) -> None:
        account = lifecycle.disable(_find(options["account"]), by=BY, cut=options["cut"])
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
        said = f"{account.name} is removed and its secret destroyed."
        self._tell(options, row | {"removed": True}, [said])
        self.stderr.write(lifecycle.REVOKE_BY_HAND)

    def _tell(self, options: dict[str, Any], told: Any, lines: Iterable[str]) -> None:
        for line in [json.dumps(told)] if options["json"] else lines:
            self.stdout.write(line)

    def _say(self, options: dict[str, Any], account: Account, done: str) -> None:
        account = Account.objects.select_related("credential").get(pk=account.pk)
        if options["json"]:
            self.stdout.write(json.dumps(_row(account)))
            return
        reason = f" ({account.reason})" if account.reason else ""
        status = account.status.replace("_", " ")
        self.stdout.write(f"{account.name} (id {account.pk}) is {done}: {status}{reason}.")


def _add_endpoint_arguments(add: ArgumentParser) -> None:
    add.add_argument(
        "--proxy-stdin",
        action="store_true",
        help="an outbound proxy's address is the first line of standard input, before the secret",
    )
    of_compatible = add.add_argument_group("of kind compatible")
    of_compatible.add_argument(
        "--preset", default="", choices=PRESETS, help="stands for what is not given, but the map"
    )
    of_compatible.add_argument("--base-url", default="", help="the part before /v1/messages")
    of_compatible.add_argument(
        "--auth", choices=[auth.value for auth in Auth], help="how the secret goes"
    )
    of_compatible.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="'MODEL = NAME'",
        help="what the endpoint calls a model; * stands for any text; may be repeated",
    )
    of_compatible.add_argument(
        "--no-betas", action="store_true", help="do not forward the clients' anthropic-beta"
    )


def _endpoint(options: dict[str, Any]) -> dict[str, Any]:
    preset = PRESETS.get(options["preset"])
    auth = options["auth"] or (preset.auth if preset else Auth.BEARER)
    try:
        model_map = endpoints.read_map("\n".join(options["map"]))
    except ValueError as error:
        raise CommandError(str(error)) from None
    return {
        "preset": options["preset"],
        "base_url": options["base_url"],
        "auth": auth,
        "secret": "" if auth == Auth.NONE else _read_secret(),
        "model_map": model_map,
        "forwards_betas": False if options["no_betas"] else None,
    }


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
    credential, ends = account.credential, grants.end_of(account)
    return {
        "id": account.pk,
        "name": account.name,
        "kind": account.kind,
        "status": account.status,
        "reason": account.reason,
        "limited_until": showing.iso(account.limited_until),
        "cooldown_until": showing.iso(account.cooldown_until),
        "expires_at": showing.iso(credential.expires_at if credential else None),
        "grant_ends_at": showing.iso(ends.at if ends else None),
        "last_used_at": showing.iso(account.last_used_at),
        "email": account.email,
        "organization": account.organization_name,
        "plan": account.plan,
    }


def _read_proxy() -> str:
    # It may hold a password, so it is no argument either.
    return getpass("Proxy: ") if sys.stdin.isatty() else sys.stdin.readline()


def _read_secret() -> str:
    # On a terminal the secret is not echoed; it is never an argument, which `ps` would show.
    return getpass("Secret: ") if sys.stdin.isatty() else _read("")


def _read(prompt: str) -> str:
    if sys.stdin.isatty():
        sys.stderr.write(f"{prompt}\n")
    return sys.stdin.read(adding.FILE_LIMIT + 1)
