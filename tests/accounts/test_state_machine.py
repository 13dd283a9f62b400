"""Four workers at once on one account, in any order: the invariants I1 to I6 hold throughout.

Each worker is a thread with a connection of its own that is stopped between what a verb has read
and what it will write, so that any other verb may come in between.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts import enrolment, facts, generations, health, leases, lifecycle, pool
from accounts.enrolment import Login
from accounts.errors import AccountError
from accounts.leases import Lease
from accounts.models import Account, Credential
from accounts.oauth import Grant
from accounts.parking import Pair
from accounts.renewal import Renewal, Wish
from accounts.states import TRANSITIONS, Kind, Status, Trigger, is_ahead
from events.models import Event
from tests.support.workers import Worker

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
WORKERS = 4
MOVES = {f"account.{trigger}": trigger for trigger in Trigger}
# What leaves a state, and who alone may do it.
LEAVES_INACTIVE = {Trigger.ENABLE: "operator", Trigger.WAKE: "request"}
LEAVES_INVALID = {Trigger.RELINK, Trigger.HEAL, Trigger.RETRY}
ENDS_A_LIMIT_EARLY = {"probe", "operator"}
OPERATIONS = (
    lifecycle.disable,
    functools.partial(lifecycle.disable, cut=True),
    lifecycle.clear,
    lifecycle.enable,
    lifecycle.enable,
    lifecycle.remove,
)
# Verbs that say whether they moved the account, and how often their event must have been written.
COUNTED = {
    "limit": "account.limit",
    "recover": "account.recover",
    "idle": "account.idle",
    "wake": "account.wake",
}
minutes = st.sampled_from([-5, 1, 60, 300])


class Pool(RuleBasedStateMachine):
    """One upstream account, its rows in the database, and four workers that know of it."""

    @initialize()
    def begin(self) -> None:
        self.now = self.latest = NOON
        self.began: dict[Worker, datetime] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(timezone, "now", lambda: self.now)
        self.count = 0
        self.last_event = 0
        self.rows: dict[int, Account] = {}
        self.generations: dict[int, tuple[int, int]] = {}
        self.won: Counter[str] = Counter()
        self.held: list[tuple[Lease, Wish]] = []
        self.probes: list[tuple[int, datetime | None]] = []
        self.brought_home: dict[UUID, str] = {}
        self.ended: dict[Worker, Callable[[Any], None]] = {}
        self.workers = [Worker() for _ in range(WORKERS)]
        with transaction.atomic():
            enrolment.enrol(self._login(), name="ada", by="operator", now=self.now)

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        try:
            while self._busy():
                self._step(self._busy()[0])
            self.every_win_is_one_event()
        finally:
            for worker in self.workers:
                worker.end()
            self.patch.undo()
            Account.objects.update(credential=None)
            for model in (Event, Credential, Account):
                model.objects.all().delete()

    # What the workers and the world do.

    @rule(data=st.data())
    @precondition(lambda self: self._busy())
    def go_on(self, data: st.DataObject) -> None:
        self._step(self._busy()[data.draw(st.integers(0, len(self._busy()) - 1), label="worker")])

    @rule()
    @precondition(lambda self: self._busy())
    def finish(self) -> None:
        self._finish(self._busy()[0])

    @rule()
    @precondition(lambda self: self._busy())
    def finish_the_latest(self) -> None:
        self._finish(self._busy()[-1])

    @rule(seconds=st.sampled_from([1, 6, 100, 3600, 8 * 86400, -3600]))
    def clock(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.now)
        self.began = {worker: min(at, self.now) for worker, at in self.began.items()}

    @rule(ahead=minutes, age=st.sampled_from([0, 3, 600]))
    def limit(self, ahead: int, age: int) -> None:
        until, at = self.now + timedelta(minutes=ahead), self.now - timedelta(seconds=age)
        pk = self._pk()
        self._start("limit", lambda: health.limit(pk, until, "rate_limit", observed_at=at))

    @rule(ahead=minutes)
    def cool_down(self, ahead: int) -> None:
        until, pk = self.now + timedelta(minutes=ahead), self._pk()
        self._start("cool_down", lambda: health.cool_down(pk, until, "overloaded"))

    @rule(by_job=st.booleans())
    def recover(self, by_job: bool) -> None:
        pk = self._pk()
        if by_job:
            self._start("recover", lifecycle.recover_rate_limited)
        else:
            self._start("recover", lambda: health.recover(pk, by="relay"))

    @rule()
    def claim_probe(self) -> None:
        pk, at = self._pk(), self.now
        until = Account.objects.filter(pk=pk).values_list("limited_until", flat=True).first()

        def note(won: bool) -> None:
            self.probes += [(pk, until)] * won

        self._start("claim_probe", lambda: health.claim_probe(pk, now=at), note)

    @rule()
    @precondition(lambda self: self.probes)
    def probe_is_served(self) -> None:
        pk, until = self.probes.pop()
        self._start("recover", lambda: health.reopen(pk, limited_until=until))

    @rule(which=st.sampled_from(["current", "oldest", "none"]))
    def refuse(self, which: str) -> None:
        pk = self._pk()
        credential = self._credential(pk, oldest=which == "oldest")
        about = None if which == "none" else credential
        if which == "none" or credential is not None:
            told = {"about": str(about)}
            self._start("refuse", lambda: health.refuse(pk, "rejected", credential=about, **told))

    @rule(age=st.sampled_from([0, 3600, 9 * 86400]))
    def late_success(self, age: int) -> None:
        at = (self.now - timedelta(seconds=age)).isoformat()
        row = {"account": self._pk(), "at": at, "windows": []}
        self._start("late_success", lambda: facts.write([row]))

    @rule()
    def idle(self) -> None:
        self._start("idle", lifecycle.deactivate_idle)

    @rule(dead=st.sampled_from(["", "", "expired"]))
    def wake(self, dead: str) -> None:
        pk = self._pk()
        self._start("wake", lambda: health.wake(pk, dead=dead))

    @rule(verb=st.sampled_from(OPERATIONS))
    def operate(self, verb: Callable[..., Any]) -> None:
        account = Account.objects.order_by("pk").last()
        self._start("operate", lambda: verb(account, by="operator"))

    @rule()
    def relink(self) -> None:
        login = self._login()

        def link() -> Account:
            with transaction.atomic():
                return enrolment.enrol(login, name="ada", by="operator", now=self.now)

        self._start("relink", link)

    @rule(rejected=st.booleans(), retry=st.booleans(), oldest=st.booleans())
    def claim(self, rejected: bool, retry: bool, oldest: bool) -> None:
        seen = self._credential(self._pk(), oldest)
        if seen is None:
            return
        wish = Wish(self._pk(), seen, rejected=rejected, retry=retry, by="operator")

        def note(claimed: Lease | Renewal | None) -> None:
            if isinstance(claimed, Lease):
                self.held.append((claimed, wish))

        self._start("claim", lambda: leases.claim(wish), note)

    @rule(data=st.data(), how=st.sampled_from(["commit", "commit", "reject", "unknown", "later"]))
    @precondition(lambda self: self.held)
    def token_endpoint_answers(self, data: st.DataObject, how: str) -> None:
        lease, wish = self.held.pop(data.draw(st.integers(0, len(self.held) - 1), label="lease"))
        if how == "commit":
            pair = Pair(lease.account, lease.seen, self._grant(), self._secret("rt"), self.now)

            def note(renewal: Renewal) -> None:
                if renewal.secret:
                    self.brought_home[pair.id] = pair.refresh_token

            self._start("commit", lambda: generations.commit(pair, wish), note)
        elif how == "reject":
            reason = "refresh_interrupted" if lease.interrupted else "refresh_rejected"
            self._start("reject", lambda: leases.reject(lease, reason))
        else:
            until, keep = self.now + timedelta(seconds=30), how == "unknown"
            self._start(
                "give_back", lambda: leases.give_back(lease, until, keep_intent=keep, why="test")
            )

    # What must hold after each step.

    @invariant()
    def all_that_changed_is_in_the_journal_and_in_the_table(self) -> None:
        if not hasattr(self, "workers"):
            return
        events = list(Event.objects.filter(pk__gt=self.last_event).order_by("pk"))
        self.last_event = max([self.last_event, *(event.pk for event in events)])
        pointers = {}
        for row in Account.objects.select_related("credential").order_by("pk"):
            before = self.rows.get(row.pk)
            mine = [event for event in events if event.subject == row.subject]
            moves = [event for event in mine if event.kind in MOVES]
            removed = [event for event in mine if event.kind == "account.removed"]
            if before is not None:
                self._check_moves(before, row, moves, removed)
                self._check_facts(before, row, {(event.kind, event.by) for event in mine})
            self._check_selection(row)
            if row.credential is not None:
                pointers[row.pk] = (row.credential.grant, row.credential.generation)
                # I2
                assert pointers[row.pk] >= self.generations.get(row.pk, (0, 0))
            self.rows[row.pk] = row
        self.generations = pointers
        self._check_secrets()

    def _check_moves(
        self, before: Account, row: Account, moves: list[Event], removed: list[Event]
    ) -> None:
        # I4
        assert row.state_version - before.state_version == len(moves) + len(removed)
        status = before.status
        for event in moves:
            trigger, old, new = MOVES[event.kind], event.data["old"], event.data["new"]
            assert old == status
            allowed = TRANSITIONS[Status(old), trigger]
            assert new in {allowed, Status.RATE_LIMITED if allowed is Status.ACTIVE else allowed}
            # I1, S15
            if old == Status.INACTIVE and new != old:
                assert event.by == LEAVES_INACTIVE[trigger]
            # S10
            if trigger is Trigger.WAKE:
                assert before.reason == "idle"
            # S08
            if trigger is Trigger.DISABLE and old == new:
                assert (before.reason, event.data["reason"]) == ("idle", "admin")
            if old == Status.INVALID and new != old:
                assert trigger in LEAVES_INVALID
            if trigger is Trigger.IDLE:
                cutoff = self.latest - timedelta(days=7)
                assert before.last_used_at is None or before.last_used_at < cutoff
            # S06
            if event.data.get("about", "None") != "None":
                assert event.data["about"] == str(before.credential_id)
            status = new
        assert row.status == status
        assert bool(removed) == (before.deleted_at != row.deleted_at)
        assert all(event.data["old"] == status for event in removed)
        if before.deleted_at is not None:
            assert not moves

    def _check_facts(self, before: Account, row: Account, events: set[tuple[str, str]]) -> None:
        # I3
        if before.limited_until is not None and row.limited_until != before.limited_until:
            earlier = row.limited_until is None or row.limited_until < before.limited_until
            by = {by for kind, by in events if kind == "account.recover"}
            over = bool(by) and before.limited_until <= self.latest
            assert not earlier or over or (by and by <= ENDS_A_LIMIT_EARLY)
        for name in ("last_used_at", "cooldown_until"):
            was, now = getattr(before, name), getattr(row, name)
            was_cleared = name == "cooldown_until" and ("account.cleared", "operator") in events
            # A use that was still to come, as its worker saw the time, gives way to another.
            slowest = min(self.began.values(), default=self.now) + facts.AHEAD
            was_ahead = name == "last_used_at" and was is not None and was > slowest
            assert was is None or was_cleared or was_ahead or now >= was

    def _check_selection(self, row: Account) -> None:
        # I5
        member = pool.load().member(row.pk)
        usable = member is not None and member.is_usable(self.now)
        over = row.status == Status.RATE_LIMITED and not is_ahead(row.limited_until, self.now)
        may = (row.status == Status.ACTIVE or over) and row.deleted_at is None
        assert usable == (may and not is_ahead(row.cooldown_until, self.now))

    def _check_secrets(self) -> None:
        stored = {row.pk: row for row in Credential.objects.select_related("account")}
        assert all(row.account.deleted_at is None for row in stored.values())
        gone = {pk for pk, row in self.rows.items() if row.deleted_at is not None}
        for pair, token in list(self.brought_home.items()):
            if pair in stored:
                assert stored[pair].refresh_token == token
            else:
                assert gone, "a token that was brought home is nowhere"

    def every_win_is_one_event(self) -> None:
        # I6: had two workers performed one move, there were more wins than events.
        for verb, kind in COUNTED.items():
            by_verbs = Event.objects.filter(kind=kind).exclude(by="operator")
            assert self.won[verb] == by_verbs.count(), verb

    # How the workers are driven.

    def _start(
        self, name: str, verb: Callable[[], Any], note: Callable[[Any], None] = lambda _: None
    ) -> None:
        worker = next((worker for worker in self.workers if not worker.busy), None)
        if worker is None:
            worker = self._busy()[0]
            self._finish(worker)

        def end(result: Any) -> None:
            self.won[name] += result if isinstance(result, int) else 0
            note(result)

        self.ended[worker], self.began[worker] = end, self.now
        worker.begin(verb)
        self._look_at(worker)

    def _finish(self, worker: Worker) -> None:
        while worker.busy:
            self._step(worker)
            self.all_that_changed_is_in_the_journal_and_in_the_table()

    def _step(self, worker: Worker) -> None:
        worker.go_on()
        self._look_at(worker)

    def _look_at(self, worker: Worker) -> None:
        if worker.busy:
            return
        if worker.error is None:
            self.ended[worker](worker.result)
        elif not isinstance(worker.error, AccountError):
            raise worker.error

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.busy]

    def _pk(self) -> int:
        return Account.objects.order_by("pk").values_list("pk", flat=True).last() or 0

    def _credential(self, pk: int, oldest: bool) -> UUID | None:
        rows = Credential.objects.filter(account=pk).order_by("grant", "generation")
        if oldest:
            return rows.values_list("pk", flat=True).first()
        return Account.objects.get(pk=pk).credential_id

    def _login(self) -> Login:
        return Login(Kind.OAUTH, self._grant(), account_uuid="ada", organization_uuid="org")

    def _grant(self) -> Grant:
        return Grant(self._secret("at"), self._secret("rt"), NOON + timedelta(days=3650))

    def _secret(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count}"


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Pool,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.django_db(transaction=True)
def test_the_invariants_hold_whatever_four_workers_do_in_any_order() -> None:
    _run(examples=6, steps=40)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_invariants_hold_over_many_more_orders() -> None:
    _run(examples=150, steps=50)
