"""The addresses of usage, under /usage/."""

from __future__ import annotations

from django.urls import path

from usage import views

app_name = "usage"
urlpatterns = [
    path("", views.report, name="report"),
    path("prices/", views.price_list, name="prices"),
    path("prices/set/", views.set_price, name="price_set"),
    path("prices/reprice/", views.reprice, name="reprice"),
    path("prices/<int:pk>/remove/", views.remove_price, name="price_remove"),
]
