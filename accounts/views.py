"""The account pages: list and actions, linking a login, adding a secret, removing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from accounts import adding, checks, endpoints, lifecycle, linking, prospects
from accounts.adding import NameTaken
from accounts.errors import AccountError, BadFields
from accounts.forms import (
    CREDENTIALS_FILE,
    EndpointForm,
    NameForm,
    PasteForm,
    RemoveForm,
    SecretForm,
    TermsForm,
)
from accounts.linking import LinkError
from accounts.models import Account, LinkFlow
from accounts.presets import ALL, PRESETS
from accounts.states import Kind, Status
from lib.access import operator_required

VERBS: dict[str, tuple[Callable[..., Account], str]] = {
    "enable": (lifecycle.enable, "“{}” is enabled."),
    "disable": (lifecycle.disable, "“{}” is disabled: it gets no new requests."),
    "cut": (
        functools.partial(lifecycle.disable, cut=True),
        "“{}” is disabled, and what it served has ended.",
    ),
    "clear": (lifecycle.clear, "“{}” waits for nothing any more."),
    "refresh": (lifecycle.refresh, "The token of “{}” is fresh."),
    "retry": (lifecycle.retry, "“{}” was tried again."),
}
DEAD = "“{}” cannot be used: its login is dead. Link it again."


@operator_required
@require_GET
def account_list(request: HttpRequest) -> HttpResponse:
    """Show every account with its state, its limits and what can be done."""
    template = "accounts/_list.html" if request.htmx else "accounts/list.html"  # type: ignore[attr-defined]
    return render(request, template, {"cards": prospects.load()})


@operator_required
@require_http_methods(["GET", "POST"])
def act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Do one verb to an account; to htmx, the list as it stands afterwards."""
    if request.method == "GET":  # whoever signed in anew after pressing a button
        return redirect("accounts:list")
    account = get_object_or_404(Account, pk=pk, deleted_at=None)
    call, done = VERBS["cut" if verb == "disable" and "cut" in request.POST else verb]
    try:
        account = call(account, by=request.user.get_username())
    except AccountError as error:
        messages.error(request, str(error))
    else:
        is_dead = account.status == Status.INVALID
        tell = messages.error if is_dead else messages.success
        tell(request, (DEAD if is_dead else done).format(account.name))
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "accounts/_acted.html", {"cards": prospects.load()})
    # The account's own page says so in its forms.
    return redirect("account", pk) if "page" in request.POST else redirect("accounts:list")


@operator_required
@require_http_methods(["GET", "POST"])
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Try an account's credential by a free request and say what came of it."""
    if request.method == "GET":
        return redirect("account", pk)
    account = get_object_or_404(Account, pk=pk, deleted_at=None)
    try:
        result = checks.test(account, by=request.user.get_username())
    except AccountError as error:
        messages.error(request, str(error))
    else:
        tell = messages.success if result.ok else messages.warning
        took = f" ({result.status}, {result.ms} ms)" if result.status else ""
        tell(request, f"“{account.name}”: {result.sentence}{took}")
    return redirect("account", pk)


@operator_required
@require_http_methods(["GET", "POST"])
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for the account's name, then take the account out of the pool for good."""
    account = get_object_or_404(Account, pk=pk, deleted_at=None)
    form = RemoveForm(_sent(request), wanted=account.name)
    if request.method == "POST" and form.is_valid():
        try:
            lifecycle.remove(account, by=request.user.get_username())
        except AccountError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"“{account.name}” is removed and its secret destroyed.")
            messages.warning(request, lifecycle.REVOKE_BY_HAND)
            return redirect("accounts:list")
    return render(request, "accounts/remove.html", {"account": account, "form": form})


@sensitive_post_parameters("secret", "proxy")
@operator_required
@require_http_methods(["GET", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    """Add an account by an API key, a setup token or a credentials file, or an endpoint."""
    if (_sent(request) or request.GET).get("kind") == Kind.COMPATIBLE:
        return _add_endpoint(request)
    form = SecretForm(_sent(request), initial={"kind": request.GET.get("kind")})
    if request.method == "POST" and form.is_valid():
        try:
            account = _added(form, by=request.user.get_username())
        except NameTaken as error:
            form.add_error("name", str(error))
        except BadFields as error:
            for name, text in error.errors.items():
                form.add_error(name, text)
        except AccountError as error:
            form.add_error("secret", str(error))
        else:
            messages.success(request, f"“{account.name}” is in the pool.")
            if form.cleaned_data["kind"] == CREDENTIALS_FILE:
                messages.warning(request, adding.SHARED_LOGIN)
            return _added_page()
    return render(request, "accounts/add.html", {"form": form})


@operator_required
@require_http_methods(["GET", "POST"])
def link(request: HttpRequest) -> HttpResponse:
    """Say what Anthropic's terms allow; begin a login when the box is ticked."""
    form, meant = TermsForm(_sent(request)), _meant(request)
    if request.method == "POST" and form.is_valid():
        flow = linking.begin(by=request.user.get_username(), session=_session(request))
        return _to_flow(flow.pk, meant)
    return render(request, "accounts/link.html", {"form": form, "meant": meant})


@sensitive_post_parameters("pasted")
@operator_required
@never_cache
@require_http_methods(["GET", "POST"])
def link_flow(request: HttpRequest, flow_id: UUID) -> HttpResponse:
    """Take the pasted code of one login, then show whose it is; each tab has a flow of its own."""
    session = _session(request)
    form = PasteForm(_sent(request))
    try:
        flow = linking.find(flow_id, session)
        if flow.used_at is None and form.is_valid():
            linking.complete(flow_id, form.cleaned_data["pasted"], session=session)
            return _to_flow(flow_id, _meant(request))
    except LinkError as error:
        return _go_on(request, flow_id, form, error)
    if flow.used_at is None:
        context = {"flow": flow, "form": form, "meant": _meant(request)}
        return render(request, "accounts/link_paste.html", context)
    return _preview(request, flow)


@operator_required
@require_http_methods(["GET", "POST"])
def confirm(request: HttpRequest, flow_id: UUID) -> HttpResponse:
    """Put the previewed account into the pool."""
    if request.method == "GET":
        return redirect("accounts:link_flow", flow_id)
    form = NameForm(request.POST)
    name = form.cleaned_data["name"] if form.is_valid() else ""
    try:
        account = linking.confirm(
            flow_id, session=_session(request), by=request.user.get_username(), name=name
        )
    except LinkError as error:
        return _ended(request, error)
    messages.success(request, f"“{account.name}” is linked.")
    return _added_page()


def _add_endpoint(request: HttpRequest) -> HttpResponse:
    """Add a compatible endpoint; `?preset=` fills the form in."""
    chosen = PRESETS.get((_sent(request) or request.GET).get("preset", ""))
    filled: dict[str, Any] = {"preset": chosen.key, "name": chosen.label} if chosen else {}
    if chosen:
        filled |= {
            "base_url": chosen.base_url,
            "auth": chosen.auth.value,
            "forwards_betas": chosen.forwards_betas,
            "model_map": endpoints.written_map(dict(chosen.model_map)),
        }
    form = EndpointForm(_sent(request), initial=filled)
    if request.method == "POST" and form.is_valid():
        fields = {name: form.cleaned_data[name] for name in form.fields if name != "kind"}
        try:
            account = adding.add_compatible(**fields, by=request.user.get_username())
        except NameTaken as error:
            form.add_error("name", str(error))
        except BadFields as error:
            for name, text in error.errors.items():
                form.add_error(name, text)
        except AccountError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"“{account.name}” is in the pool.")
            return _added_page()
    context = {"form": form, "presets": ALL, "chosen": chosen}
    return render(request, "accounts/add_endpoint.html", context)


def _go_on(request: HttpRequest, flow_id: UUID, form: PasteForm, error: LinkError) -> HttpResponse:
    """Show the error in the form while the flow can still be used, else on a page of its own."""
    try:
        flow = linking.find(flow_id, _session(request))
    except LinkError:
        return _ended(request, error)
    if flow.used_at is not None:
        return _ended(request, error)
    form.add_error("pasted", str(error))
    context = {"flow": flow, "form": form, "meant": _meant(request)}
    return render(request, "accounts/link_paste.html", context)


def _preview(request: HttpRequest, flow: LinkFlow) -> HttpResponse:
    if flow.confirmed_at is not None:
        return redirect("accounts:list")
    try:
        preview = linking.preview(flow)
    except LinkError as error:
        return _ended(request, error)
    form = NameForm(initial={"name": preview.email})
    context = {"flow": flow, "preview": preview, "form": form, "meant": _meant(request)}
    return render(request, "accounts/link_confirm.html", context)


def _meant(request: HttpRequest) -> Account | None:
    """Return the account that was to be linked again (`?account=`), if it is there."""
    number = request.GET.get("account", "")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return None
    return Account.objects.filter(pk=number, deleted_at=None).first()


def _to_flow(flow_id: UUID, meant: Account | None) -> HttpResponse:
    query = f"?account={meant.pk}" if meant else ""
    return redirect(reverse("accounts:link_flow", args=[flow_id]) + query)


def _ended(request: HttpRequest, error: LinkError) -> HttpResponse:
    return render(request, "accounts/link_ended.html", {"error": str(error)}, status=410)


def _added(form: SecretForm, by: str) -> Account:
    kind, name = form.cleaned_data["kind"], form.cleaned_data["name"]
    secret = form.cleaned_data["secret"]
    proxy = form.cleaned_data["proxy"]
    if kind == CREDENTIALS_FILE:
        return adding.add_credentials_file(name=name, text=secret, by=by, proxy=proxy)
    return adding.add_secret(kind=kind, name=name, secret=secret, by=by, proxy=proxy)


def _added_page() -> HttpResponse:
    """Show the list; after the first account the overview, which leads on to the first key."""
    is_first = Account.objects.filter(deleted_at=None).count() == 1
    return redirect("overview" if is_first else "accounts:list")


def _sent(request: HttpRequest) -> QueryDict | None:
    return request.POST if request.method == "POST" else None


def _session(request: HttpRequest) -> str:
    if not request.session.session_key:
        request.session.save()
    return str(request.session.session_key)
