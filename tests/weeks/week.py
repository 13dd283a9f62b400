"""A story of six accounts over a week, and what was seen of it, in the words of the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.models import Account
from events import channels
from events.models import Event
from tests.relay.conftest import Relay
from tests.support.inbox import Inbox
from tests.support.virtual_time import Act, Story

# A little more than a week: seven days without use is what idle means.
MONDAY = datetime(2027, 3, 1, tzinfo=UTC)
END = MONDAY + timedelta(days=7, hours=2)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "next Mon")
PEOPLE = ("ada", "grace", "linus", "mary", "edith")
# In which they are tried.
ORDER = ("ada", "grace", "console", "linus", "mary", "edith")
CLAUDE_CODE, OTHER = "claude-cli/2.1.328 (external, cli)", "curl/8.5"
SET_UP = ("account.linked", "key.create", "channel.created", "rule.created")
REFRESHED = "account.refreshed"


class Week:
    """Asks, lets things happen at Anthropic, and looks."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._names: dict[str, str] = {}
        self._acts: list[tuple[datetime, Act]] = []
        self.served: list[str] = []
        self.states: list[str] = []

    async def set_up(self, inbox: Inbox) -> None:
        """Link the accounts, and let the channel hear of what needs somebody."""
        await self._relay.link(*PEOPLE)
        await self._relay.add_api_key("console")
        for priority, name in enumerate(ORDER):
            await self._relay.set(name, priority=priority)
            self._names[self._relay.accounts[name].subject] = name
        _, inbox.secret = await sync_to_async(channels.create)(
            "on call", inbox.url, by="operator", preset=True
        )

    def story(self) -> Story:
        """Return what happens, and when."""
        simulator = self._relay.simulator
        self._spend("Tue 09:05", "ada", "5h", until="Tue 13:00:10")
        self._spend("Wed 08:00", "grace", "7d", until="Sat 12:00:10")
        self._on("Wed 15:30", simulator.revoke_grant, "mary@example.com")
        self._spend("Thu 09:05", "ada", "5h", until="Thu 14:00")
        self._lift("Thu 10:20", "ada", "5h")
        self._on("Thu 18:30", simulator.person, "edith@example.com", disabled=True)
        self._spend("Sat 09:05", "ada", "5h", until="Sat 14:00")
        self._lift("Sat 10:20", "ada", "5h")
        for day in DAYS[:-1]:
            self._ask(f"{day} 09:10", f"{day} 16:10")
            self._ask(f"{day} 10:10", agent=OTHER)
        # The hour's probe; the second before the reset; and after it, before any job has run.
        self._ask("Tue 12:10", "Tue 13:00:09", "Tue 13:00:11", "Thu 10:40")
        return self._acts

    def look(self, *moments: str) -> None:
        """Note the states of all accounts at these moments."""
        self._acts += [(at(moment), self._look) for moment in moments]

    async def journal(self) -> list[str]:
        """Return what was journaled after the set-up, but for refreshes."""
        rows = Event.objects.exclude(kind__in=(*SET_UP, REFRESHED))
        return [line for _, line in sorted([(row.at, self._line(row)) async for row in rows])]

    async def refreshes(self) -> dict[str, list[datetime]]:
        """Return when each account's token was refreshed."""
        rows = Event.objects.filter(kind=REFRESHED).order_by("at")
        told = [(self._names[row.subject], row.at) async for row in rows]
        return {name: [moment for who, moment in told if who == name] for name in PEOPLE}

    def calls(self) -> dict[str, dict[str, int]]:
        """Return how often each account was asked for what."""
        asked = Counter(
            (seen["account"].split("@")[0], PATHS[seen["target"].partition("?")[0]])
            for seen in self._relay.simulator.requests()
        )
        return {
            name: {what: asked[name, what] for what in PATHS.values() if asked[name, what]}
            for name in ORDER
        }

    def _on(self, moment: str, verb: Callable[..., Any], *args: Any, **more: Any) -> None:
        self._acts.append((at(moment), lambda: sync_to_async(verb)(*args, **more)))

    def _spend(self, moment: str, name: str, window: str, *, until: str) -> None:
        spent = {window: {"status": "rejected", "reset": at(until).timestamp()}}
        self._on(moment, self._relay.simulator.limit, f"{name}@example.com", spent)

    def _lift(self, moment: str, name: str, window: str) -> None:
        open_again = {window: {"utilization": 0.2}}
        self._on(moment, self._relay.simulator.limit, f"{name}@example.com", open_again)

    def _ask(self, *moments: str, agent: str = CLAUDE_CODE) -> None:
        async def act() -> None:
            before = len(self._relay.served())
            answer = await self._relay.ask("reply: done", headers={"user-agent": agent})
            assert answer.status_code == 200, answer.text
            tried = self._relay.served()[before:]
            self.served.append(f"{told(timezone.now())} {', '.join(tried)}")

        self._acts += [(at(moment), act) for moment in moments]

    async def _look(self) -> None:
        rows = [row async for row in Account.objects.exclude(status="active").order_by("priority")]
        said = [f"{row.name} {row.status} {row.reason}".strip() for row in rows]
        self.states.append(f"{told(timezone.now())} {'; '.join(said) or 'all active'}")

    def _line(self, event: Event) -> str:
        data: dict[str, Any] = event.data
        said = [f"{told(event.at)} {self._names.get(event.subject, event.subject)} {event.kind}"]
        if "old" in data:
            said.append(f"{data['old']} -> {data['new']}")
        said += [str(data[name]) for name in ("reason", "window", "why") if data.get(name)]
        if data.get("limited_until"):
            said.append(f"until {told(datetime.fromisoformat(data['limited_until']))}")
        if "attempt" in data:
            said.append(f"attempt {data['attempt']}")
        return ", ".join([*said, f"by {event.by}"])


PATHS = {
    "/v1/messages": "messages",
    "/v1/oauth/token": "tokens",
    "/api/oauth/usage": "usage",
    "/api/oauth/profile": "profile",
    "/v1/models": "models",
}


def at(moment: str) -> datetime:
    """Return the moment that a table calls "Tue 09:10" or "Tue 13:00:10"."""
    day, _, time = moment.rpartition(" ")
    hour, minute, second = map(int, f"{time}:00".split(":")[:3])
    days = timedelta(days=DAYS.index(day))
    return MONDAY + days + timedelta(hours=hour, minutes=minute, seconds=second)


def told(moment: datetime) -> str:
    """Say a moment as the tables do."""
    return f"{DAYS[(moment - MONDAY).days]} {moment:%H:%M:%S}"
