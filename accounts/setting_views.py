"""The page on which an account's settings are changed."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import editing
from accounts.errors import AccountError, BadFields
from accounts.models import Account
from accounts.setting_forms import SettingForm, form_for
from lib.access import operator_required


@sensitive_post_parameters("secret", "proxy")
@operator_required
@require_http_methods(["GET", "POST"])
def change(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the settings of an account; take what was changed, or say what cannot be."""
    account = get_object_or_404(Account, pk=pk, deleted_at=None)
    form = form_for(account, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and _is_changed(form, request):
        return redirect("account", pk)
    return render(request, "accounts/settings.html", {"account": account, "form": form})


def _is_changed(form: SettingForm, request: HttpRequest) -> bool:
    """Change what the form says; False with the form's errors when that cannot be."""
    changes = form.changes()
    try:
        account = editing.update(form.account, request.user.get_username(), **changes)
    except BadFields as error:
        for name, text in error.errors.items():
            form.add_error(name if name in form.fields else None, text)
        return False
    except AccountError as error:
        form.add_error(None, str(error))
        return False
    said = "The settings of “{}” are changed." if changes else "Nothing was changed for “{}”."
    messages.success(request, said.format(account.name))
    return True
