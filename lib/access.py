"""Who may use the console's pages and the admin API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the API: the name for the journal, and what a login begun here is bound to."""

    by: str
    session: str


def caller_of(request: HttpRequest) -> Caller:
    """Return who was let in by the API."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    return caller


def is_operator(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Tell whether a user may use the console."""
    return bool(user.is_active and getattr(user, "is_staff", False))


def operator_required(view: View) -> View:
    """Let only operators in; anybody else is sent to the sign-in page and comes back afterwards.

    No browser or proxy keeps a page of the console.
    """
    return never_cache(user_passes_test(is_operator, login_url="login")(view))
