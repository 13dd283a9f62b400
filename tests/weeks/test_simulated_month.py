"""A month of five accounts: none is out of the pool longer than what it was told, or shorter."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.utils import timezone

from accounts import adding, lifecycle, pool
from accounts.pool import Pool
from events.models import Event
from providers.anthropic import limits
from relay import breaker, effects, outcomes, routing, verdicts
from relay.bench import bench
from relay.capabilities import Offers
from relay.facts import Facts
from relay.quota import Place
from relay.request import ClientRequest
from relay.trail import Trail
from sessions_limit.keys import Key

START = datetime(2027, 3, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
BEAT = timedelta(seconds=30)
SECOND = timedelta(seconds=1)
# How often each account meets what in a month, more or less.
OFTEN = {"5h": 8, "7d": 2, "both": 1, "brief": 5, "long": 2, "outage": 3}
LIMITS = frozenset({"5h", "7d", "both", "long"})
LONGEST_REST = timedelta(seconds=360)
# An answer to a request that was on its way when its account was benched.
LATE_SHARE = 0.2
MODEL = "claude-opus-5-5"
ASK = ClientRequest(
    "rly_1",
    Key(1, "test", None),
    "POST",
    "/v1/messages",
    "/v1/messages",
    ((b"user-agent", b"claude-cli/2.1.328 (external, cli)"),),
    b"",
    MODEL,
)


@dataclass(frozen=True, slots=True)
class Window:
    """How long an account is to be left alone, and what said so."""

    begin: datetime
    end: datetime
    what: str


class Month:
    """Answers come at random; the truth is kept beside what the product makes of them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.accounts = [
            adding.add_secret("setup_token", name, f"sk-ant-oat01-{name}", "test").pk
            for name in ("ada", "grace", "linus", "mary", "edith")
        ]
        self.truth: dict[int, list[Window]] = defaultdict(list)
        self.benched: set[tuple[int, datetime, str]] = set()
        self.moments = [START + MONTH]
        answers = [
            (START + self.dice.random() * MONTH, account, what)
            for account in self.accounts
            for what, times in OFTEN.items()
            for _ in range(times)
        ]
        self.answers = [(at.replace(microsecond=0), *rest) for at, *rest in sorted(answers)]

    def live(self, traveller: time_machine.Traveller) -> None:
        """Go from answer to answer, and to the second before, at and after each window's end."""
        answers = list(self.answers)
        while self.moments:
            if answers and answers[0][0] <= self.moments[0]:
                at, account, what = answers.pop(0)
                traveller.move_to(at)
                self._answer(account, what, at)
            else:
                at = heapq.heappop(self.moments)
                traveller.move_to(at)
                if at.timestamp() % BEAT.total_seconds() == 0:
                    lifecycle.recover_rate_limited()
                    self._compare_states(at)
            self._compare(at)

    def _answer(self, account: int, what: str, now: datetime) -> None:
        view = pool.load()
        is_out = account not in self._usable(view, now)
        if is_out and (what == "outage" or self.dice.random() > LATE_SHARE):
            return
        if what == "outage":
            self._fail(account, view, now)
            return
        facts, until = self._refusal(what, now)
        member = view.member(account)
        assert member is not None
        row = verdicts.judge(facts)
        outcomes.judged(row, Place(member, "", Trail()), ASK.key.id, view)
        async_to_sync(effects.apply)(row, facts, member, MODEL)
        self._expect(Window(now, until, what), account)

    def _refusal(self, what: str, now: datetime) -> tuple[Facts, datetime]:
        """Return a 429 as Anthropic sends it, and when it is over."""
        headers, until = {}, now
        ahead = {"5h": self.dice.randint(60, 5 * 3600), "7d": self.dice.randint(3600, 7 * 86400)}
        if what in ("brief", "long"):
            seconds = self.dice.randint(*((6, 3600) if what == "brief" else (3601, 4 * 3600)))
            headers["retry-after"], until = str(seconds), now + timedelta(seconds=seconds)
        else:
            headers["anthropic-ratelimit-unified-status"] = "rejected"
            # The other window's reset, and this one, must decide nothing.
            headers["retry-after"] = str(min(ahead.values()))
            for name, seconds in ahead.items():
                is_spent = what in (name, "both")
                reset = now + timedelta(seconds=seconds)
                prefix = f"anthropic-ratelimit-unified-{name}"
                headers[f"{prefix}-status"] = "rejected" if is_spent else "allowed"
                headers[f"{prefix}-reset"] = str(int(reset.timestamp()))
                headers[f"{prefix}-utilization"] = "1.0" if is_spent else "0.4"
                until = max(until, reset) if is_spent else until
        told = limits.read(headers, now)
        return Facts(status=429, error="rate_limit_error", is_json=True, limits=told), until

    def _fail(self, account: int, view: Pool, now: datetime) -> None:
        """Let an account fail five times while another serves: it rests, in this process alone."""
        other = next(other for other in self.accounts if other != account)
        breaker.accounts.succeeded(other)
        row = verdicts.judge(Facts(status=500, error="api_error", is_json=True))

        member = view.member(account)
        assert member is not None
        place = Place(member, "", Trail())

        async def fail() -> None:
            for _ in range(breaker.FAILURES):
                outcomes.judged(row, place, ASK.key.id, view)
            await effects.settled()

        async_to_sync(fail)()
        if until := bench.held_until(account, MODEL, now):
            assert until - now <= LONGEST_REST
            self._expect(Window(now, until, "outage"), account)

    def _expect(self, window: Window, account: int) -> None:
        self.truth[account].append(window)
        beat = window.end + timedelta(seconds=-window.end.timestamp() % BEAT.total_seconds())
        for moment in (window.end - SECOND, window.end, beat):
            heapq.heappush(self.moments, moment)

    def _compare(self, now: datetime) -> None:
        view = pool.load()
        held = {account for account in self.accounts if self._holds(account, now)}
        assert set(self._usable(view, now)) == set(self.accounts) - held, now
        for member in view.members:
            told = self._holds(member.id, now, without="outage")
            assert member.is_usable(now) is not told, (member.name, now)
            assert (member.returns_at(now) or now) == self._end(member.id, now)
            if member.limited_until and member.limited_until > now:
                self.benched.add((member.id, member.limited_until, "account.limit"))
            if member.cooldown_until and member.cooldown_until > now:
                self.benched.add((member.id, member.cooldown_until, "account.cooldown"))

    def _compare_states(self, now: datetime) -> None:
        """After the job: an account is rate-limited while a limit lasts, and no longer."""
        for member in pool.load().members:
            lasts = any(
                window.begin <= now < window.end
                for window in self.truth[member.id]
                if window.what in LIMITS
            )
            assert member.status == ("rate_limited" if lasts else "active"), (member.name, now)

    def _usable(self, view: Pool, now: datetime) -> tuple[int, ...]:
        return routing.candidates(view, bench, ASK, now, offers=Offers()).usable

    def _holds(self, account: int, now: datetime, without: str = "") -> bool:
        return any(w.begin <= now < w.end and w.what != without for w in self.truth[account])

    def _end(self, account: int, now: datetime) -> datetime:
        """Return when the last of the windows that were told is over; now, if none holds."""
        ends = [w.end for w in self.truth[account] if w.begin <= now < w.end]
        told = [w.end for w in self.truth[account] if w.what != "outage" and w.end in ends]
        return max(told, default=now)


@pytest.fixture
def _breaker_lives_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = breaker.AccountBreaker(clock=lambda: timezone.now().timestamp())
    monkeypatch.setattr(breaker, "accounts", virtual)


SEEDS = range(1, 12)


@pytest.mark.slow
@pytest.mark.usefixtures("transactional_db", "_breaker_lives_in_virtual_time")
@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_benched_longer_than_its_windows(seed: int) -> None:
    with time_machine.travel(START, tick=False) as traveller:
        month = Month(seed)
        month.live(traveller)

    events = list(Event.objects.order_by("at", "id"))
    assert month.benched <= {_reason(event) for event in events}
    for account in month.accounts:
        spans = _out(events, f"account:{account}")
        windows = [w for w in month.truth[account] if w.what in LIMITS]
        assert spans
        assert _total(spans) <= _total([(w.begin, w.end) for w in windows]) + len(spans) * BEAT


def _reason(event: Event) -> tuple[int, datetime, str] | None:
    """Return whom an event benches and until when, if it says why."""
    if not event.data.get("reason"):
        return None
    account = int(event.subject.partition(":")[2])
    if event.kind == "account.cooldown":
        until = event.at + timedelta(seconds=event.data["seconds"])
        return account, until, event.kind
    return account, datetime.fromisoformat(event.data["limited_until"]), event.kind


def _out(events: list[Event], subject: str) -> list[tuple[datetime, datetime]]:
    """Return from when to when the journal has an account rate-limited."""
    moves = [event for event in events if event.subject == subject and "old" in event.data]
    spans, since = [], None
    for event in moves:
        if event.data["new"] == "rate_limited":
            since = since or event.at
        elif since is not None:
            spans.append((since, event.at))
            since = None
    return [*spans, (since, START + MONTH)] if since else spans


def _total(spans: list[tuple[datetime, datetime]]) -> timedelta:
    """Return how long spans last that may overlap."""
    total, reached = timedelta(), START
    for begin, end in sorted(spans):
        total += max(end - max(begin, reached), timedelta())
        reached = max(reached, end)
    return total
