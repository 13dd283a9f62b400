"""The limiter's script does, step by step, what a model of it in plain Python does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from lib import redis as clients
from lib.batch import batch
from sessions_limit import limiter
from sessions_limit.limiter import Admitted, Banned, Bound, Claim, Full, Life, Scope

T = TypeVar("T")
BEGIN = 1_800_000_000.0
LIFE = Life(idle=300, longest=1000)
# Whole eighths of a second are exact in a float, and in six decimals.
TICK = 0.125


@dataclass
class Lived:
    """One life of a session."""

    since: float
    ends: float
    scopes: frozenset[str]
    is_shared: bool = False


@dataclass
class Model:
    """What is to happen: who lives, where they count, and who is bound to what."""

    now: float = BEGIN
    lives: dict[str, Lived] = field(default_factory=dict)
    bans: dict[str, float] = field(default_factory=dict)
    bound: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    turns_of: dict[tuple[int, ...], int] = field(default_factory=dict)

    def living(self, scope: str) -> dict[str, float]:
        """Return when each living session of a scope ends."""
        found = {name: one for name, one in self.lives.items() if scope in one.scopes}
        return {name: one.ends for name, one in found.items() if one.ends > self.now}

    def admit(
        self, name: str, scopes: Sequence[Scope], since: float | None, claim: Claim | None
    ) -> Admitted | Full | Banned:
        if self.bans.get(name, 0) > self.now:
            return Banned(self.bans[name] - self.now)
        old = self.lives.get(name)
        is_new = old is None or old.ends <= self.now
        if is_new and since is None:
            full = [Full(self._wait(scope), scope) for scope in scopes if self._is_full(scope)]
            if full:
                return max(full, key=lambda one: one.seconds)
        begun = old.since if old and not is_new else self.now if since is None else since
        ends = min(self.now + LIFE.idle, begun + LIFE.longest)
        is_shared = bool(old and not is_new and (old.is_shared or since != begun))
        if ends > self.now:
            names = frozenset(scope.name for scope in scopes)
            self.lives[name] = Lived(begun, ends, names, is_shared)
        return Admitted(begun, ends - self.now, is_new, self.bind(claim))

    def _is_full(self, scope: Scope) -> bool:
        return 0 <= scope.most <= len(self.living(scope.name))

    def _wait(self, scope: Scope) -> float:
        """Return after how long as many have ended that there is room for one."""
        if scope.most == 0:
            return LIFE.idle
        ends = sorted(self.living(scope.name).values(), reverse=True)
        return ends[scope.most - 1] - self.now

    def bind(self, claim: Claim | None) -> Bound:
        if claim is None:
            return Bound()
        bound = self.bound.get(claim.binding)
        if bound in claim.usable and bound != claim.moved_from:
            return Bound(bound)
        group = tuple(claim.group)
        turn = 0
        if len(group) > 1:
            turn = self.turns_of.get(group, self.turns)
            self.turns, self.turns_of[group] = self.turns + 1, turn + 1
        self.bound[claim.binding] = group[turn % len(group)]
        return Bound(self.bound[claim.binding], is_claimed=True)

    def end(self, name: str) -> None:
        if name in self.lives and not self.lives[name].is_shared:
            del self.lives[name]

    def revoke(self, name: str, until: float) -> None:
        self.lives.pop(name, None)
        self.bans[name] = max(until, self.bans.get(name, 0))


NAMES = ("a/1", "a/2", "a/3", "a/4", "b/1", "b/2")
GROUPS = ((1,), (1, 2), (2, 3, 2), (1, 2, 3))
SCOPES = (limiter.ALL, "client:a", "client:b", "key:1", "key:2")
names = st.sampled_from(NAMES)
limits = st.sampled_from((0, 1, 1, 3, 3, 3, -1))
keys = st.sampled_from((None, None, "key:1", "key:2"))
claims = st.tuples(
    st.sampled_from(GROUPS),
    st.sets(st.integers(1, 3)),
    st.sampled_from((None, None, None, 1, 2)),
)
pauses = st.sampled_from((1, 8, 800, 1600, 2400, 2401, 8000))


class Compared(RuleBasedStateMachine):
    """Does the same to both."""

    runner: asyncio.Runner
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.known: dict[str, float] = {}
        self.refused: tuple[str, list[Scope], float] | None = None
        self.runner.run(begin())

    @rule(name=names, total=limits, own=limits, key=keys, of_key=limits, told=st.booleans())
    def admit(self, name: str, total: int, own: int, key: str, of_key: int, told: bool) -> None:
        self._admit(name, scopes_of(name, total, own, key, of_key), told=told)

    @rule(name=names, claim=claims, own=limits)
    def admit_with_a_claim(self, name: str, claim: Any, own: int) -> None:
        self._admit(name, scopes_of(name, -1, own), claim=claim_of(name, claim))

    @rule(name=names, age=st.integers(0, 9000), own=limits)
    def come_back_with_an_age(self, name: str, age: int, own: int) -> None:
        self.known[name] = self.model.now - age * TICK
        self._admit(name, scopes_of(name, -1, own), told=True)

    @precondition(lambda self: self.refused is not None)
    @rule()
    def come_back_when_told(self) -> None:
        assert self.refused is not None
        name, scopes, seconds = self.refused
        self.model.now += math.ceil(seconds)

        answer = self._admit(name, scopes)

        assert isinstance(answer, Admitted) or any(scope.most == 0 for scope in scopes)

    @rule(name=names)
    def end(self, name: str) -> None:
        self.model.end(name)
        self._do(limiter.end(name, now=self.model.now))

    @rule(name=names, seconds=st.integers(-10, 400))
    def revoke(self, name: str, seconds: int) -> None:
        until = self.model.now + seconds
        self.model.revoke(name, until)
        self._do(limiter.revoke(name, until, now=self.model.now))

    @rule(name=names, claim=claims)
    def bind(self, name: str, claim: Any) -> None:
        wanted = claim_of(name, claim)
        expected = self.model.bind(wanted)

        assert self._do(limiter.bind(wanted)) == expected

    @rule(ticks=pauses)
    def wait(self, ticks: int) -> None:
        self.model.now += ticks * TICK
        self.refused = None

    def _admit(
        self, name: str, scopes: list[Scope], told: bool = False, claim: Claim | None = None
    ) -> Admitted | Full | Banned:
        since = self.known.get(name) if told else None
        expected = self.model.admit(name, scopes, since, claim)
        asked = limiter.admit(name, scopes, LIFE, claim=claim, since=since, now=self.model.now)

        assert self._do(asked) == expected

        if isinstance(expected, Admitted):
            self.known[name] = expected.since
        if isinstance(expected, Full):
            self.refused = name, scopes, expected.seconds
        return expected

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        """Do it, and compare who counts where: each once, until it ends."""
        type(self).steps += 1
        self.refused = None
        answer, found = self.runner.run(self._done(what))
        assert found == [self.model.living(scope) for scope in SCOPES]
        return answer

    async def _done(self, what: Coroutine[Any, Any, T]) -> tuple[T, list[dict[str, float]]]:
        living = (
            batch().run("ZRANGEBYSCORE", scope, f"({self.model.now}", "+inf", "WITHSCORES")
            for scope in SCOPES
        )
        # All of it goes in one round trip, in this order.
        answer, *found = await asyncio.gather(what, *living)
        return answer, [dict(told) for told in found]


def scopes_of(
    name: str, total: int, own: int, key: str | None = None, of_key: int = 0
) -> list[Scope]:
    client = name.partition("/")[0]
    found = [Scope(limiter.ALL, total), Scope(f"client:{client}", own)]
    return [*found, Scope(key, of_key)] if key else found


def claim_of(name: str, claim: Any) -> Claim:
    group, usable, moved_from = claim
    return Claim(f"binding:{name}", group, sorted(usable), moved_from)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Compared]]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    with asyncio.Runner() as runner:
        monkeypatch.setattr(Compared, "runner", runner, raising=False)
        monkeypatch.setattr(Compared, "steps", 0)
        yield Compared
        runner.run(close())


async def begin() -> None:
    await clients.for_requests().flushdb()
    await clients.for_requests().script_load(limiter.SCRIPT)


async def close() -> None:
    await clients.for_requests().flushdb()
    await clients.close()


def check(compared: type[Compared], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        compared,
        settings=hypothesis.settings(
            max_examples=examples,
            phases=[hypothesis.Phase.generate],
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_script_agrees_with_the_model(compared: type[Compared]) -> None:
    check(compared, examples=25, steps=40)


@pytest.mark.slow
def test_the_script_agrees_with_the_model_over_ten_thousand_steps(compared: type[Compared]) -> None:
    check(compared, examples=240, steps=60)

    assert compared.steps >= 10_000
