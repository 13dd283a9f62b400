"""`manage.py doctor`: is everything well that Carousel stands on, and if not, what to do."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management import BaseCommand, CommandParser

from proxy_project import doctor, surroundings


class Command(BaseCommand):
    """Look at everything and say how it is; exit with 1 when something has failed."""

    help = "Look at database, Redis, jobs, upstream, credentials, disk and settings."
    # It must run when everything is broken.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Look and tell."""
        findings = doctor.examine(surroundings.ALL)
        if options["json"]:
            self.stdout.write(json.dumps(doctor.as_json(findings)))
        else:
            for line in doctor.lines(findings):
                self.stdout.write(line)
        if not doctor.is_well(findings):
            sys.exit(1)
