"""manage.py alert: list channels, rules and deliveries; send a test alert."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from events import channels, listing
from events.models import Channel, Delivery, Rule, State
from lib import tables

BY = "command line"
SHOWN = 20
CHANNELS = ("id", "name", "kind", "host", "state")
RULES = ("id", "name", "kinds", "subjects", "channel", "throttle_seconds", "enabled")
DELIVERIES = ("created_at", "kind", "subject", "channel", "state", "attempts", "last_error")


class Command(BaseCommand):
    """Look at alerts and test their channels."""

    help = "List channels, rules and the last deliveries, or send a test alert."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs; each takes --json."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show channels, rules and the last deliveries")
        test = verbs.add_parser("test", help="send one signed test alert now")
        test.add_argument("channel", help="the channel's name or id")
        for verb in verbs.choices.values():
            verb.add_argument("--json", action="store_true", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb."""
        getattr(self, f"_{options['verb']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        found = {
            "channels": [_channel(row) for row in listing.channels()],
            "rules": [_rule(rule) for rule in listing.rules()],
            "deliveries": [_delivery(row.delivery) for row in listing.log(SHOWN)],
        }
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        for name, columns in zip(found, (CHANNELS, RULES, DELIVERIES), strict=True):
            self.stdout.write(f"{name}:")
            for line in tables.lines(columns, found[name]):
                self.stdout.write(f"  {line}")

    def _test(self, options: dict[str, Any]) -> None:
        row = channels.test(_find(options["channel"]), by=BY)
        if options["json"]:
            self.stdout.write(json.dumps(_delivery(row)))
        elif row.state == State.DELIVERED:
            self.stdout.write(f"{row.channel.name} took the test alert ({row.last_status}).")
        if row.state != State.DELIVERED:
            raise CommandError(f"{row.channel.name} did not take the test alert: {row.last_error}.")


def _find(text: str) -> Channel:
    for channel in Channel.objects.filter(removed_at=None):
        if text in (channel.name, str(channel.pk)):
            return channel
    raise CommandError(f"there is no channel {text!r}; see: manage.py alert list")


def _channel(row: listing.ChannelRow) -> dict[str, Any]:
    channel = row.channel
    state = "enabled" if channel.enabled else f"disabled ({channel.disabled_why})"
    named = {"id": str(channel.pk), "name": channel.name, "kind": channel.kind}
    return named | {"host": row.host, "state": state}


def _rule(rule: Rule) -> dict[str, Any]:
    shown = {name: getattr(rule, name) for name in ("id", "name", "throttle_seconds", "enabled")}
    patterns = {name: " ".join(getattr(rule, name)) for name in ("kinds", "subjects")}
    return shown | patterns | {"channel": rule.channel.name}


def _delivery(row: Delivery) -> dict[str, Any]:
    columns = ("kind", "subject", "state", "attempts", "suppressed", "last_status", "last_error")
    times = {
        name: (moment := getattr(row, name)) and moment.isoformat(timespec="seconds")
        for name in ("created_at", "delivered_at", "next_at")
    }
    shown = {name: getattr(row, name) for name in columns}
    return {"id": str(row.pk), "channel": row.channel.name} | shown | times
