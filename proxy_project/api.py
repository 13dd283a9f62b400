"""The admin API under /api/: who may call it, its parts, and its errors as problem JSON."""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import RedirectView
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

import accounts.api
import events.api
import sessions_limit.api
import sessions_limit.me
import sessions_limit.sessions_api
import usage.api
from accounts.errors import AccountError
from lib import problems
from lib.access import Caller, is_operator, operator_required
from proxy_project import statistics, tokens
from sessions_limit.issuing import KeyRevoked
from sessions_limit.terms import BadTerms
from usage.reports import BadReport

LARGEST_BODY = 256 * 1024
RETRY_AFTER = 30
# What may be told of a name that was sent; anything else might be a secret in the wrong place.
NAME = re.compile(r"[a-z_]{1,32}")
PARTS = {
    "/accounts": accounts.api.router,
    "/keys": sessions_limit.api.router,
    "/sessions": sessions_limit.sessions_api.router,
    "/me": sessions_limit.me.router,
    "/events": events.api.router,
    "/usage": usage.api.router,
}
NOT_KNOWN = "There is nothing at this address. See /api/docs for what there is."
UNAUTHENTICATED = (
    "Sign in to the console, or send an admin token: “Authorization: Bearer adm_…”. "
    "A relay key opens /api/me, and nothing else here."
)
FORGED = "The request lacks the console's CSRF token in the header X-CSRFToken."
log = logging.getLogger(__name__)


class AdminToken(HttpBearer):
    """A token of `manage.py token` or of the console; no cookie is looked at."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        """Return the token as a caller."""
        found = tokens.authenticate(token)
        if found is None:
            return None
        return Caller(by=f"token {found.name}", session=f"admin token {found.pk}")


class OperatorSession(APIKeyCookie):
    """The console's session; what changes something needs the CSRF token too."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Caller | None:
        """Return the signed-in operator; raise a 403 for anybody else and for a forged request."""
        # Whoever shows a token means the token, whatever cookies come with it.
        if request.headers.get("Authorization", "").lower().startswith("bearer"):
            return None
        if not request.user.is_authenticated:
            return None
        if not is_operator(request.user):
            raise HttpError(403, "This user is not an operator.")
        if check_csrf(request) is not None:
            raise HttpError(403, FORGED)
        return self.authenticate(request, request.session.session_key)

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        """Return the operator as a caller."""
        return Caller(by=request.user.get_username(), session=str(key))


class AdminApi(NinjaAPI):
    """The API, which says truly of what type its problems are."""

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """Return the schema."""
        schema = super().get_openapi_schema(**options)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    if status >= 400:
                        answer["content"] = {problems.MEDIA_TYPE: answer["content"].popitem()[1]}
        return schema


api = AdminApi(
    title="Carousel",
    version="1",
    description=(
        "Looks after the accounts of the pool. Times are ISO 8601 with a zone, shares of a limit "
        "window fractions (1.0 is all of it). Errors are problem JSON (RFC 9457)."
    ),
    urls_namespace="api",
    openapi_url=None,
    docs_url=None,
    auth=[AdminToken(), OperatorSession()],
)
for prefix, router in PARTS.items():
    api.add_router(prefix, router)


@api.get(
    "/admin/statistics",
    response={200: statistics.Statistics, **problems.documented()},
    tags=["statistics"],
)
def admin_statistics(request: HttpRequest) -> statistics.Statistics:
    """Show how the pool and its surroundings stand."""
    return statistics.load()


@api.get("/openapi.json", include_in_schema=False, url_name="openapi-json")
def openapi(request: HttpRequest) -> OpenAPISchema:
    """Return what this API is, for programs."""
    return _schema()


@operator_required
def docs(request: HttpRequest) -> HttpResponse:
    """Show what this API is, for people; operations can be tried out there."""
    return render(request, "proxy_project/api_docs.html")


@api.exception_handler(AccountError)
def on_account_error(request: HttpRequest, error: AccountError) -> HttpResponse:
    """Tell what an operator would be told."""
    status, errors = accounts.api.problem(error)
    retry_after = RETRY_AFTER if status == 503 else None
    return problems.response(status, str(error), errors=errors, retry_after=retry_after)


@api.exception_handler(BadTerms)
def on_bad_terms(request: HttpRequest, error: BadTerms) -> HttpResponse:
    """Tell what a key cannot be given."""
    return problems.response(422, "Some of what was sent cannot be.", errors=error.errors)


@api.exception_handler(KeyRevoked)
def on_revoked_key(request: HttpRequest, error: KeyRevoked) -> HttpResponse:
    """Tell that it is too late."""
    return problems.response(409, str(error))


@api.exception_handler(BadReport)
def on_bad_report(request: HttpRequest, error: BadReport) -> HttpResponse:
    """Tell which part of the question is wrong."""
    return problems.response(422, str(error), errors={error.field: str(error)})


@api.exception_handler(ValidationError)
def on_bad_fields(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Tell what is wrong with each field; never what was sent, which may be a secret."""
    errors = {_field(fault["loc"]): _said(fault) for fault in error.errors}
    return problems.response(422, "Some of what was sent cannot be.", errors=errors)


@api.exception_handler(AuthenticationError)
def on_stranger(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    """Tell how to sign in, unless it is told what else was wrong."""
    is_said = str(error) != str(AuthenticationError())
    answer = problems.response(401, str(error) if is_said else UNAUTHENTICATED)
    answer["WWW-Authenticate"] = 'Bearer realm="Carousel"'
    return answer


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Tell what the library found wrong."""
    return problems.response(error.status_code, f"{str(error).rstrip('.')}.")


@api.exception_handler(Http404)
def on_missing(request: HttpRequest, error: Http404) -> HttpResponse:
    """Tell that it is not there."""
    return problems.response(404, "There is no such thing.")


@api.exception_handler(Exception)
def on_unforeseen(request: HttpRequest, error: Exception) -> HttpResponse:
    """Log what nobody expected; the caller is told no more than that."""
    log.error("serve %s %s", request.method, request.path, exc_info=error)
    return problems.response(500, "Something broke here. The relay's log says what.")


@csrf_exempt
def not_known(request: HttpRequest, **_: Any) -> HttpResponse:
    """Answer for addresses that are not there."""
    return problems.response(404, NOT_KNOWN)


def guarded(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return the view with what holds for every address: small bodies, nothing kept anywhere."""

    @functools.wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        answer = _refused_body(request) or view(request, *args, **kwargs)
        if answer.status_code == 405:
            allowed = answer["Allow"]
            answer = problems.response(405, f"This address takes {allowed}.")
            answer["Allow"] = allowed
        answer["Cache-Control"] = "no-store"
        return answer

    return guard


def _refused_body(request: HttpRequest) -> HttpResponse | None:
    if "Transfer-Encoding" in request.headers:
        return problems.response(411, "Say how long the body is, by Content-Length.")
    length = request.headers.get("Content-Length") or "0"
    if not (length.isascii() and length.isdigit()):
        return problems.response(400, "The Content-Length is not a number.")
    if len(length) > 9 or int(length) > LARGEST_BODY:
        return problems.response(413, f"The body is larger than {LARGEST_BODY // 1024} KiB.")
    if int(length) and request.content_type != "application/json":
        return problems.response(415, "The body must be application/json.")
    return None


@functools.cache
def _schema() -> OpenAPISchema:
    return api.get_openapi_schema()


def _field(location: tuple[Any, ...]) -> str:
    source, *rest = location
    if source == "body":
        rest = rest[1:]
    # A body of several kinds is told with its kind before the field.
    if len(rest) > 1 and rest[0] in accounts.api.KINDS:
        rest = rest[1:]
    names = itertools.takewhile(NAME.fullmatch, map(str, rest))
    return ".".join(names) or str(source)


def _said(fault: dict[str, Any]) -> str:
    """Say what is wrong with a field, without the parts in which pydantic quotes the value."""
    context, text = fault.get("ctx", {}), str(fault["msg"])
    if "tag" in context:
        return f"The field {context['discriminator']} should be {context['expected_tags']}"
    return text.removesuffix(str(context.get("error", ""))).rstrip(" ,:")


def _patterns() -> list[URLPattern]:
    found: list[Any] = api.urls[0]
    for pattern in found:
        pattern.callback = guarded(pattern.callback)
    return found


urls = (
    [
        path("", RedirectView.as_view(pattern_name="api:docs")),
        path("docs", docs, name="docs"),
        *_patterns(),
        re_path(".*", guarded(not_known)),
    ],
    "ninja",
    "api",
)
