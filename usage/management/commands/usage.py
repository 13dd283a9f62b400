"""manage.py usage: report what was spent, export it, and price records anew."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from lib import tables
from usage import asking, export, metrics, pricelist, reports, showing
from usage.reports import BadReport, Question

BY = "command line"
TIME = "a day like 2026-11-20, or a time in ISO 8601"


class Command(BaseCommand):
    """Look at what was spent."""

    help = "Report what was spent, export it, or put today's prices on records of the past."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        report = verbs.add_parser("report", help="show a report")
        exporting = verbs.add_parser(
            "export", help="write a report, or records, to standard output"
        )
        reprice = verbs.add_parser("reprice", help="put the prices in force on records of the past")
        for verb in (report, exporting):
            verb.add_argument("--metric", default="requests", choices=metrics.NAMES)
            verb.add_argument("--group", default="day", choices=reports.GROUPS)
            for name in reports.FILTERS:
                verb.add_argument(f"--{name}", default="", help="only of this one")
        exporting.add_argument("--kind", default="report", choices=export.KINDS)
        reprice.add_argument("--only-unknown", action="store_true", help="those without a price")
        for verb in verbs.choices.values():
            verb.add_argument("--since", required=verb is reprice, help=TIME)
            verb.add_argument("--until", help=f"{TIME}; not included; without: now")
            verb.add_argument("--zone", default="UTC", help="whose days: Europe/Berlin")
            verb.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb."""
        try:
            getattr(self, f"_{options['verb']}")(options)
        except BadReport as error:
            raise CommandError(f"--{error.field}: {error}") from None

    def _report(self, options: dict[str, Any]) -> None:
        report = reports.report(_question(options))
        if options["json"]:
            rows = [{"group": row.value, "label": row.label, **row.figures} for row in report.rows]
            self.stdout.write(json.dumps({"rows": rows, "total": report.total}))
            return
        columns = (options["group"], *report.columns)
        lines = [(row.label, row.figures) for row in report.rows] + [("all", report.total)]
        for line in tables.lines(
            columns,
            [
                {options["group"]: label}
                | {
                    name: showing.figure(figures[name], kind)
                    for name, kind in report.columns.items()
                }
                for label, figures in lines
            ],
        ):
            self.stdout.write(line)

    def _export(self, options: dict[str, Any]) -> None:
        form = "json" if options["json"] else "csv"
        try:
            for chunk in export.written(options["kind"], form, _question(options)):
                self.stdout.write(chunk.decode(), ending="")
        except BrokenPipeError:
            # Whoever reads has enough; nothing more can be said to it, at the end either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _reprice(self, options: dict[str, Any]) -> None:
        asked = _question(options)
        reports.check_range(asked)
        changed = pricelist.reprice(
            asked.since, asked.until, by=BY, only_unknown=options["only_unknown"]
        )
        if options["json"]:
            self.stdout.write(json.dumps({"changed": changed}))
            return
        self.stdout.write(f"{changed} costs changed; sums follow within seconds")


def _question(options: dict[str, Any]) -> Question:
    zone = asking.zone_named(options["zone"])

    def moment(name: str) -> datetime | None:
        return asking.moment(options[name], zone, name) if options[name] else None

    return asking.question(
        options.get("metric", "requests"),
        options.get("group", "day"),
        since=moment("since"),
        until=moment("until"),
        zone=options["zone"],
        filters={name: options.get(name, "") for name in reports.FILTERS},
        now=timezone.now(),
    )
