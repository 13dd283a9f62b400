"""Print a new one-time set-up link."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from proxy_project import setup


class Command(BaseCommand):
    """Make the link that creates the first operator; the one before stops working."""

    help = "Print a one-time link that creates the first operator; an older one stops working."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the address of the relay."""
        parser.add_argument("--base", default="", help="the relay's address; default: PUBLIC_URL")

    def handle(self, *args: Any, base: str, **options: Any) -> None:
        """Print the link, or say that there is an operator already."""
        link = setup.make_link(base or settings.CONFIG.public_url or "http://127.0.0.1:8000")
        if link is None:
            raise CommandError("There is an operator already: sign in, or use changepassword.")
        self.stdout.write(link)
