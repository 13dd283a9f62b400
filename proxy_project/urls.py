"""Every address of the console."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from lib.access import operator_required
from proxy_project import account_pages, api, token_pages, views

admin.site.site_title = "Carousel"
admin.site.site_header = "Carousel: the tables behind the console"
admin.site.index_title = "All tables"
# One way in: the console's sign-in page, with whatever guards it.
admin.site.login = operator_required(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    path("", views.overview, name="overview"),
    # The relay answers "/" itself unless the caller asks for HTML, which htmx does not.
    path("overview/", views.overview, name="overview_region"),
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(next_page="login"), name="logout"),
    path("setup/", views.set_up, name="setup"),
    path("setup/<str:token>", views.set_up, name="setup_link"),
    path("accounts/<int:pk>/", account_pages.account, name="account"),
    path("accounts/<int:pk>/cut/", account_pages.cut, name="account_cut"),
    path("accounts/", include("accounts.urls")),
    path("keys/", include("sessions_limit.urls")),
    path("sessions/", include("sessions_limit.session_urls")),
    path("alerts/", include("events.alert_urls")),
    path("events/", include("events.urls")),
    path("usage/", include("usage.urls")),
    path("tokens/", token_pages.token_list, name="tokens"),
    path("tokens/create/", token_pages.create, name="token_create"),
    path("tokens/<int:pk>/revoke/", token_pages.revoke, name="token_revoke"),
    path("api/", api.urls),
    path("favicon.ico", RedirectView.as_view(url=static("favicon.svg"))),
    path("admin/", admin.site.urls),
]
