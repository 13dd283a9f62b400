"""Forms of the way into the console."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.forms import AuthenticationForm, UserCreationForm
from django.contrib.auth.models import AbstractBaseUser, User
from django.core.exceptions import ValidationError


class SignInForm(AuthenticationForm):
    """Name and password of an operator."""

    error_messages = {
        "invalid_login": "That name and password do not belong together.",
        "inactive": "This user is switched off.",
        "not_an_operator": "This user may not use the console.",
    }

    def confirm_login_allowed(self, user: AbstractBaseUser) -> None:
        """Let operators in only; an ordinary user of Django's tables is none."""
        super().confirm_login_allowed(user)  # type: ignore[arg-type]
        if not getattr(user, "is_staff", False):
            raise ValidationError(self.error_messages["not_an_operator"], code="not_an_operator")


class OperatorForm(UserCreationForm[User]):
    """Name and password of the first operator."""

    class Meta:
        model = User
        fields = ("username",)
        help_texts = {"username": "For signing in. Letters, digits and @ . + - _ only."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password1"].help_text = "At least 12 characters, and none of the common ones."
        self.fields["password2"].label = "The same password again"
        self.fields["password2"].help_text = ""
