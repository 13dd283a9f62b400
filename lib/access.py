"""Who may use the console's pages."""

from __future__ import annotations

from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def is_operator(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Tell whether a user may use the console."""
    return bool(user.is_active and getattr(user, "is_staff", False))


# Anybody else is sent to the sign-in page and comes back afterwards.
operator_required = user_passes_test(is_operator, login_url="login")
