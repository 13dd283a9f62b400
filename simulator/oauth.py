"""The login endpoints: the authorize page and the token endpoint."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from . import grants, pages
from .answer import Answer, json_answer, text_answer
from .call import Call
from .edge import check_edge
from .errors import FormatError, GrantError, error_body
from .script import Action
from .state import World

PASTE_URI = "https://platform.claude.com/oauth/code/callback"
REQUIRED = (
    "client_id",
    "response_type",
    "redirect_uri",
    "scope",
    "code_challenge",
    "code_challenge_method",
    "state",
)
FIXED = {"response_type": "code", "code_challenge_method": "S256"}


def show_authorize(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /oauth/authorize with the page of people to choose from."""
    if problem := find_problem(call.query):
        return text_answer(400, pages.refusal(problem))
    return text_answer(200, pages.choice(call.query, list(world.accounts.values())))


def submit_authorize(world: World, call: Call, action: Action) -> Answer:
    """Answer the page's form: show the code, or redirect to a loopback callback."""
    form = dict(parse_qsl(call.body.decode(errors="replace"), keep_blank_values=True))
    email = form.pop("account", "")
    if problem := find_problem(form):
        return text_answer(400, pages.refusal(problem))
    if email not in world.accounts:
        return text_answer(400, pages.refusal(f"There is no account {email!r}."))
    code = grants.approve(world, form, email)
    if form["redirect_uri"] == PASTE_URI:
        return text_answer(200, pages.code(f"{code}#{form['state']}", email))
    query = urlencode({"code": code, "state": form["state"]})
    return Answer(302, {"location": f"{form['redirect_uri']}?{query}"})


def find_problem(params: dict[str, str]) -> str | None:
    """Return what is wrong with an authorize request, or None."""
    for name in REQUIRED:
        if not params.get(name):
            return f"The parameter {name} is missing."
    for name, value in FIXED.items():
        if params[name] != value:
            return f"The parameter {name} must be {value}."
    uri = params["redirect_uri"]
    if uri != PASTE_URI and not _is_loopback(uri):
        return f"Redirect URI {uri} is not supported by client."
    return None


def issue_tokens(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/oauth/token; every call is written to the ledger with its outcome."""
    check_edge(call)
    fields = _read_fields(call)
    grant_type = str(fields.get("grant_type"))
    owner = grants.owner_of(world, fields)
    try:
        answer = _grant(world, fields)
    except FormatError:
        world.log_token_call(grant_type, owner, "bad_format")
        return json_answer(400, error_body(400, "Invalid request format", call.request_id))
    except GrantError as error:
        world.log_token_call(grant_type, owner, error.outcome)
        body = {"error": error.error, "error_description": error.description}
        return json_answer(400, body)
    world.log_token_call(grant_type, owner, "ok")
    return json_answer(200, _altered(answer, action), {"cache-control": "no-store"})


def _grant(world: World, fields: dict[str, Any]) -> dict[str, Any]:
    match fields.get("grant_type"):
        case "authorization_code":
            return grants.exchange(world, fields)
        case "refresh_token":
            return grants.refresh(world, fields)
        case _:
            raise FormatError


def _read_fields(call: Call) -> dict[str, Any]:
    """Return the JSON fields; anything else gives an empty form, which no grant accepts."""
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return {}
    try:
        fields = json.loads(call.body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _altered(answer: dict[str, Any], action: Action) -> dict[str, Any]:
    gone = {"refresh_token"} if action.omit_refresh_token else set()
    changed = answer if action.expires_in is None else {**answer, "expires_in": action.expires_in}
    return {name: value for name, value in changed.items() if name not in gone | set(action.omit)}


def _is_loopback(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        has_port = parts.port is not None
    except ValueError:
        return False
    return parts.scheme == "http" and parts.hostname == "localhost" and has_port
