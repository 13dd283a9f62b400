"""Linking a Claude account by the paste flow: begin, complete, confirm."""

from __future__ import annotations

import dataclasses
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from accounts import grants, oauth, profile_endpoint
from accounts.enrolment import Login, enrol, known, secret_hash
from accounts.errors import AccountError
from accounts.models import Account, LinkFlow
from accounts.states import Kind
from lib.crypto import keyed_hash

LIFE = timedelta(minutes=10)
KEPT = timedelta(days=1)
PASTE_LIMIT = 4096


class LinkError(AccountError):
    """A login could not be linked; the text says why and what to do."""


class NotACode(LinkError):
    """What was pasted holds no code."""


class WrongState(LinkError):
    """The code belongs to another login than the one begun here."""


class FlowExpired(LinkError):
    """The link is too old, or was never there."""


class FlowUsed(LinkError):
    """The link was used before."""


class ForeignFlow(LinkError):
    """The link was begun in another session."""


class ExchangeRefused(LinkError):
    """Anthropic did not accept the code."""


class ExchangeLost(LinkError):
    """Anthropic did not answer."""


class NotCompleted(LinkError):
    """There is nothing to confirm yet."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What the operator is asked to confirm; `existing` is set when it is a re-link."""

    email: str
    organization: str
    plan: str
    scopes: tuple[str, ...]
    ends: grants.End | None
    existing: Account | None
    profile_read: bool


def begin(by: str, session: str, now: datetime | None = None) -> LinkFlow:
    """Begin a login and return its flow; `flow.url` is where the owner approves it.

    `session` names the operator's session; only the same one can go on with the flow.
    """
    now = now or timezone.now()
    return LinkFlow.objects.create(
        state=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(32),
        session=_session_hash(session),
        by=by,
        created_at=now,
        expires_at=now + LIFE,
    )


def find(flow_id: UUID | str, session: str, now: datetime | None = None) -> LinkFlow:
    """Return the flow that this session began; raise FlowExpired or ForeignFlow."""
    now = now or timezone.now()
    identity = _uuid(flow_id)
    flow = LinkFlow.objects.filter(pk=identity).first() if identity else None
    if flow is None:
        raise FlowExpired("This link is not valid any more. Begin a new one.")
    if not secrets.compare_digest(flow.session, _session_hash(session)):
        raise ForeignFlow("This link was begun in another session. Begin a new one here.")
    if flow.expires_at <= now and flow.confirmed_at is None:
        raise FlowExpired("This link is more than 10 minutes old. Begin a new one.")
    return flow


def complete(
    flow_id: UUID | str, pasted: str, session: str, now: datetime | None = None
) -> LinkFlow:
    """Turn what the owner pasted into tokens, kept sealed in the flow until it is confirmed.

    Accepts `code#state`, the whole callback address, or the bare code. Raises a LinkError that says
    what is wrong; unless that is ExchangeRefused or ExchangeLost, nothing was asked upstream.
    """
    now = now or timezone.now()
    flow = find(flow_id, session, now)
    if flow.used_at is not None:
        raise FlowUsed("This link was used already. Begin a new one.")
    code, state = _read(pasted)
    if state is not None and not secrets.compare_digest(state.encode(), flow.state.encode()):
        raise WrongState(
            "This code belongs to another login. Paste the code of the link shown here."
        )
    if not LinkFlow.objects.filter(pk=flow.pk, used_at=None).update(used_at=now):
        raise FlowUsed("This link was used already. Begin a new one.")
    grant, profile = async_to_sync(_ask)(code, flow.verifier, flow.state)
    flow.used_at = now
    flow.answer = json.dumps(dataclasses.asdict(grant), default=datetime.isoformat)
    flow.profile = dataclasses.asdict(profile) if profile else None
    flow.expires_at = now + LIFE
    flow.save(update_fields=["answer", "profile", "expires_at"])
    return flow


def preview(flow: LinkFlow) -> Preview:
    """Return what a completed flow would link; raise NotCompleted before that."""
    login = _login(flow)
    return Preview(
        email=login.email,
        organization=login.organization_name,
        plan=login.plan,
        scopes=tuple(login.grant.scopes.split()),
        ends=grants.end(login.kind, login.grant.scopes, flow.used_at, login.grant.grant_ends_at),
        existing=known(login),
        profile_read=login.profile_read,
    )


def confirm(
    flow_id: UUID | str, session: str, by: str, name: str = "", now: datetime | None = None
) -> Account:
    """Link the account of a completed flow and return it; a second call returns the same one.

    `name` is for a new account only; left out, it is the login's e-mail address.
    """
    now = now or timezone.now()
    flow = find(flow_id, session, now)
    if flow.confirmed_at is None:
        login = _login(flow)
        with transaction.atomic():
            # The sealed tokens go in the transaction that puts them into the account.
            if LinkFlow.objects.filter(pk=flow.pk, confirmed_at=None).update(
                confirmed_at=now, answer=None
            ):
                account = enrol(login, name=name, by=by, now=now)
                LinkFlow.objects.filter(pk=flow.pk).update(account=account)
                return account
        flow.refresh_from_db()
    if flow.account is None:
        raise FlowUsed("This link was confirmed, and its account was removed since.")
    return flow.account


def shred_expired(now: datetime | None = None) -> int:
    """Delete flows that nobody confirmed in time, and old confirmed ones; return how many."""
    now = now or timezone.now()
    open_flows = LinkFlow.objects.filter(confirmed_at=None, expires_at__lt=now)
    old_flows = LinkFlow.objects.filter(expires_at__lt=now - KEPT)
    return open_flows.delete()[0] + old_flows.delete()[0]


def _uuid(text: UUID | str) -> UUID | None:
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except ValueError:
        return None


def _read(pasted: str) -> tuple[str, str | None]:
    """Return code and state (None for a bare code) of what was pasted; raise NotACode."""
    text = pasted.strip()
    if text.startswith(("http://", "https://")) and len(text) <= PASTE_LIMIT:
        query = _query(text)
        code, state = query.get("code", ""), query.get("state")
        if "code_challenge" in query or not code:
            raise NotACode("This address holds no code. Paste the code that the last page shows.")
    else:
        code, found, state = text.partition("#")
        state = state.strip() if found else None
        code = code.strip()
    if len(text) > PASTE_LIMIT or not oauth.is_header_safe(code):
        raise NotACode("This is not a code. Paste what the last page of the login shows.")
    return code, state


def _query(address: str) -> dict[str, str]:
    try:
        query = parse_qs(urlsplit(address).query)
    except ValueError:
        return {}
    return {name: values[0] for name, values in query.items()}


async def _ask(
    code: str, verifier: str, state: str
) -> tuple[oauth.Grant, profile_endpoint.Profile | None]:
    try:
        grant = await oauth.exchange(code, verifier, state)
    except oauth.TokenEndpointError as error:
        raise ExchangeRefused(_refused(error)) from None
    except oauth.OutcomeUnknown:
        raise ExchangeLost("Anthropic did not answer. Begin a new link and try again.") from None
    try:
        return grant, await profile_endpoint.read(grant.access_token)
    except profile_endpoint.ProfileUnreadable:
        return grant, None


def _refused(error: oauth.TokenEndpointError) -> str:
    if error.refusal is oauth.Refusal.FINAL:
        return "Anthropic did not accept this code: it is wrong, used or too old. Begin a new link."
    if error.status == 429:
        return (
            "Anthropic wants no more logins for a moment. Wait some minutes, then begin a new link."
        )
    return f"Anthropic refused the login (status {error.status}). Begin a new link and try again."


def _login(flow: LinkFlow) -> Login:
    answer = flow.answer
    if answer is None:
        raise NotCompleted("There is nothing to confirm yet. Paste the code first.")
    grant = _grant(json.loads(answer))
    told = flow.profile or {
        "account_uuid": grant.account_uuid,
        "organization_uuid": grant.organization_uuid,
        "email": grant.email,
        "organization_name": grant.organization_name,
    }
    secret = grant.refresh_token or grant.access_token
    return Login(
        kind=Kind.OAUTH,
        grant=grant,
        secret_hash=secret_hash(secret),
        profile_read=flow.profile is not None,
        **told,
    )


def _grant(data: dict[str, Any]) -> oauth.Grant:
    for name in ("expires_at", "grant_ends_at"):
        data[name] = data[name] and datetime.fromisoformat(data[name])
    return oauth.Grant(**data)


def _session_hash(session: str) -> str:
    return keyed_hash(session, "link flow session")
