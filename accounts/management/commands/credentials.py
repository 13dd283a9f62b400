"""manage.py credentials: seal all secrets anew with the first of CREDENTIAL_KEYS."""

from __future__ import annotations

import dataclasses
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from accounts import resealing
from accounts.resealing import Report

BY = "command line"


class Command(BaseCommand):
    """Look after the keys that seal the secrets."""

    help = "Seal all secrets anew with the first key of CREDENTIAL_KEYS."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        rotate = verbs.add_parser(
            "rotate-keys", help="seal anew what an older key sealed; may be run again at any time"
        )
        rotate.add_argument("--batch", type=int, default=100, help="rows that are read at once")
        rotate.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Re-seal and say whether the older keys can go; exit code 1 if they cannot."""
        if options["batch"] < 1:
            raise CommandError("--batch must be at least 1.")
        try:
            report = resealing.reseal(options["batch"], by=BY)
        except DatabaseError as error:
            name = type(error).__name__
            raise CommandError(f"The database failed ({name}). Run it again.") from None
        if options["json"]:
            answer = dataclasses.asdict(report) | {"old_keys_can_go": report.is_done}
            self.stdout.write(json.dumps(answer))
        else:
            self._say(report)
        if not report.is_done:
            raise CommandError("The older keys must stay.")

    def _say(self, report: Report) -> None:
        self.stdout.write(f"{report.resealed} secrets were sealed anew.")
        for place in report.unopened:
            self.stdout.write(f"Opens with none of the keys: {place}")
        if report.remaining:
            self.stdout.write(
                f"{report.remaining} are still sealed by an older key. Restart every process, so "
                "that it knows the new key, and run this again."
            )
        if report.parked_unknown:
            self.stdout.write("Redis is away: what is parked there is not known. Run this again.")
        if report.is_done:
            self.stdout.write("Everything opens with the first key. The older keys can go.")
