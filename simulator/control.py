"""The control endpoints by which tests set the scene and look at what happened."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from . import files, grants, limits, oauth
from .clock import SettableClock
from .recorder import Recorder
from .script import Scripts
from .state import Account, ApiKey, World

ACCOUNT_OPTIONS = frozenset(
    {
        "account_uuid",
        "organization_uuid",
        "organization_name",
        "organization_type",
        "rate_limit_tier",
        "subscription_status",
        "claude_code_only",
        "disabled",
    }
)

TOKEN_CHANGES = frozenset({"expire_access", "expire_grant", "revoke_grant", "access_ttl"})
# The last that a date of four digits can tell.
LAST_SECOND = 253_402_300_800

Reply = dict[str, Any] | list[Any]
Verb = Callable[[web.Request, dict[str, Any]], Reply]


class Control:
    """All control verbs; each takes the request's JSON and returns what to answer."""

    def __init__(
        self, world: World, scripts: Scripts, recorder: Recorder, clock: SettableClock
    ) -> None:
        self._world = world
        self._scripts = scripts
        self._recorder = recorder
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        """Put the verbs under /_control."""
        routes: list[tuple[str, str, Verb]] = [
            ("POST", "scripts", self.add_script),
            ("GET", "scripts", self.list_scripts),
            ("DELETE", "scripts", self.clear_scripts),
            ("POST", "limits", self.set_limits),
            ("POST", "accounts", self.put_account),
            ("GET", "accounts", self.list_accounts),
            ("POST", "api_keys", self.put_api_key),
            ("GET", "api_keys", self.list_api_keys),
            ("POST", "setup_tokens", self.issue_setup_token),
            ("POST", "authorize", self.authorize),
            ("POST", "tokens", self.change_tokens),
            ("GET", "tokens", self.show_ledger),
            ("GET", "requests", self.list_requests),
            ("DELETE", "requests", self.clear_requests),
            ("GET", "seen", self.count_seen),
            ("GET", "files", self.list_files),
            ("POST", "clock", self.set_clock),
            ("POST", "reset", self.reset),
        ]
        for method, name, verb in routes:
            app.router.add_route(method, f"/_control/{name}", _handler(verb))
        app.router.add_route("*", "/_control/{name:.*}", _handler(_unknown))

    def add_script(self, request: web.Request, given: dict[str, Any]) -> Reply:
        return {"id": self._scripts.add(given).id}

    def list_scripts(self, request: web.Request, given: dict[str, Any]) -> Reply:
        return [script.to_json() for script in self._scripts.all]

    def clear_scripts(self, request: web.Request, given: dict[str, Any]) -> Reply:
        self._scripts.clear()
        return {}

    def set_limits(self, request: web.Request, given: dict[str, Any]) -> Reply:
        now = self._world.clock()
        if "api_key" in given:
            limits.set_allowances(self._key(given["api_key"]), given["per_minute"], now)
            return {}
        account = self._account(given["account"])
        limits.set_windows(account, given.get("windows", {}), now)
        account.overage_in_use = bool(given.get("overage_in_use", account.overage_in_use))
        return {}

    def put_account(self, request: web.Request, given: dict[str, Any]) -> Reply:
        email = given.pop("email")
        if unknown := sorted(set(given) - ACCOUNT_OPTIONS):
            raise ValueError(f"unknown option: {', '.join(unknown)}")
        return self._show_account(self._world.put_account(email, **given))

    def list_accounts(self, request: web.Request, given: dict[str, Any]) -> Reply:
        return [self._show_account(account) for account in self._world.accounts.values()]

    def put_api_key(self, request: web.Request, given: dict[str, Any]) -> Reply:
        organization = given.get("organization_uuid")
        return _show_key(self._world.put_api_key(given["name"], given.get("key"), organization))

    def list_api_keys(self, request: web.Request, given: dict[str, Any]) -> Reply:
        return [_show_key(key) for key in self._world.api_keys.values()]

    def issue_setup_token(self, request: web.Request, given: dict[str, Any]) -> Reply:
        account = self._account(given["email"])
        return {"token": grants.issue_setup_token(self._world, account.email)}

    def authorize(self, request: web.Request, given: dict[str, Any]) -> Reply:
        params = dict(parse_qsl(urlsplit(given["url"]).query, keep_blank_values=True))
        if problem := oauth.find_problem(params):
            raise ValueError(problem)
        code = grants.approve(self._world, params, self._account(given["account"]).email)
        state = params["state"]
        return {"code": code, "state": state, "pasted": f"{code}#{state}"}

    def change_tokens(self, request: web.Request, given: dict[str, Any]) -> Reply:
        account = self._account(given.pop("account"))
        if unknown := sorted(set(given) - TOKEN_CHANGES):
            raise ValueError(f"unknown key: {', '.join(unknown)}")
        if given.get("expire_access"):
            grants.expire_access(self._world, account.email)
        if given.get("expire_grant"):
            grants.expire_grants(self._world, account.email)
        if given.get("revoke_grant"):
            grants.revoke(self._world, account.email)
        if "access_ttl" in given:
            account.access_ttl = given["access_ttl"]
        return {}

    def show_ledger(self, request: web.Request, given: dict[str, Any]) -> Reply:
        calls = self._world.ledger
        kinds = [call["grant_type"] for call in calls]
        return {
            "calls": calls,
            "refreshes": kinds.count("refresh_token"),
            "exchanges": kinds.count("authorization_code"),
        }

    def list_requests(self, request: web.Request, given: dict[str, Any]) -> Reply:
        path, account = request.query.get("path"), request.query.get("account")
        return [
            entry.to_json()
            for entry in self._recorder.entries
            if (path is None or entry.target.partition("?")[0] == path)
            and (account is None or entry.account == account)
        ]

    def clear_requests(self, request: web.Request, given: dict[str, Any]) -> Reply:
        self._recorder.clear()
        return {}

    def count_seen(self, request: web.Request, given: dict[str, Any]) -> Reply:
        text = request.query["text"]
        if not text:
            raise ValueError("text is empty")
        count = sum(entry.contains(text) for entry in self._recorder.entries)
        return {"count": count, "dropped": self._recorder.dropped}

    def list_files(self, request: web.Request, given: dict[str, Any]) -> Reply:
        return [files.to_json(file) for file in self._world.files.values()]

    def set_clock(self, request: web.Request, given: dict[str, Any]) -> Reply:
        now = given["now"]
        if now is not None and not (type(now) in (int, float) and 0 <= now < LAST_SECOND):
            raise ValueError("now is neither epoch seconds nor null")
        self._clock.set(now)
        return {"now": self._clock()}

    def reset(self, request: web.Request, given: dict[str, Any]) -> Reply:
        self._clock.set(None)
        self._world.reset(keep_accounts=bool(given.get("keep_accounts")))
        self._scripts.clear()
        self._recorder.clear()
        return {}

    def _account(self, email: str) -> Account:
        account = self._world.accounts.get(email)
        if account is None:
            raise ValueError(f"no account {email!r}")
        return account

    def _key(self, name: str) -> ApiKey:
        key = next((key for key in self._world.api_keys.values() if key.name == name), None)
        if key is None:
            raise ValueError(f"no API key {name!r}")
        return key

    def _show_account(self, account: Account) -> dict[str, Any]:
        now = self._world.clock()
        alive = [
            token
            for token in self._world.tokens.values()
            if token.grant.email == account.email
            and not token.grant.revoked
            and now < token.expires_at
        ]
        logins = [grant for grant in self._world.grants if grant.email == account.email]
        return {
            "email": account.email,
            "account_uuid": account.account_uuid,
            "organization_uuid": account.organization_uuid,
            "organization_name": account.organization_name,
            "organization_type": account.organization_type,
            "rate_limit_tier": account.rate_limit_tier,
            "subscription_status": account.subscription_status,
            "claude_code_only": account.claude_code_only,
            "disabled": account.disabled,
            "served": account.served,
            "in_flight": account.in_flight,
            "valid_tokens": len(alive),
            "grants": [
                {
                    "id": grant.id,
                    "scopes": list(grant.scopes),
                    "revoked": grant.revoked,
                    "refreshes": grant.refreshes,
                }
                for grant in logins
            ],
        }


def _show_key(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "key": key.key,
        "organization_uuid": key.organization_uuid,
        "served": key.served,
        "in_flight": key.in_flight,
    }


def _unknown(request: web.Request, given: dict[str, Any]) -> Reply:
    raise ValueError(f"no control endpoint {request.method} {request.path}")


def _handler(verb: Verb) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Wrap a verb: loopback peers only, JSON in and out, mistakes as a 400 that names them."""

    async def handle(request: web.Request) -> web.Response:
        if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:
            return web.json_response({"error": "loopback only"}, status=403)
        try:
            given = await request.json() if request.can_read_body else {}
            return web.json_response(verb(request, given))
        except KeyError as error:
            return web.json_response({"error": f"missing {error}"}, status=400)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle
