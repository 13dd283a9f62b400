"""Sessions as Redis counts them over all processes: one script, one call, its own clock."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from lib.batch import batch
from lib.redis import REQUEST_TIMEOUT, for_jobs

ALL = "sessions:all"
TURNS = "sessions:turn"
BOUND_SECONDS = 3600
# For pages and commands: the database holds what they ask for, Redis makes it true earlier.
PATIENCE = 4 * REQUEST_TIMEOUT
SCRIPT = (Path(__file__).parent / "limiter.lua").read_text(encoding="ascii")
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Scope:
    """Sessions that count together, and how many of them there may be; -1 is any number."""

    name: str
    most: int


@dataclass(frozen=True, slots=True)
class Life:
    """How many seconds a session may be idle, and may live in all."""

    idle: float
    longest: float


@dataclass(frozen=True, slots=True)
class Claim:
    """Which account a session wants: the next of `group`, unless it has one that is `usable`.

    With `moved_from` it wants to leave that one.
    """

    binding: str
    group: Sequence[int]
    usable: Sequence[int]
    moved_from: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The account of a session, and whether it was claimed just now; None without a claim."""

    account: int | None = None
    is_claimed: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """The session lives `since` (epoch seconds by the clock of Redis), and for `left` seconds."""

    since: float
    left: float
    is_new: bool
    bound: Bound


@dataclass(frozen=True, slots=True)
class Full:
    """A scope has all its sessions; a slot is free in `seconds` if all of them are idle."""

    seconds: float
    scope: Scope


@dataclass(frozen=True, slots=True)
class Banned:
    """The session was revoked, and is refused for `seconds`."""

    seconds: float


async def admit(
    name: str,
    scopes: Sequence[Scope],
    life: Life,
    *,
    claim: Claim | None = None,
    since: float | None = None,
    now: float | None = None,
) -> Admitted | Full | Banned:
    """Admit a session, or keep it alive; raise RedisError or OSError.

    `since` says that it lives already, as a process knows: it goes on whatever the limits are, also
    in a Redis that was emptied. `now` stands for the clock of Redis.
    """
    keys = [lease(name), *_bound_to(claim), *(scope.name for scope in scopes)]
    most = [scope.most for scope in scopes]
    known = "" if since is None else since
    given = (_time(now), name, life.idle, life.longest, known, *most, *_wanted(claim))
    return _read(await _run(keys, "admit", *given), scopes)


async def bind(claim: Claim) -> Bound:
    """Return the account of a session that need not be open; raise RedisError or OSError.

    The claim is atomic over all processes, so parallel first requests of a session land together
    and new sessions take turns exactly; an account that stands in a group twice gets two turns.
    """
    told = await _run(["", *_bound_to(claim)], "bind", "", "", *_wanted(claim))
    return _bound(*told)


async def end(name: str, now: float | None = None) -> None:
    """Free the slots of a session that only this process knows; raise RedisError or OSError."""
    await _run([lease(name)], "end", _time(now), name)


async def revoke(name: str, until: float, now: float | None = None) -> None:
    """Free the slots of a session and refuse it until then; raise RedisError or OSError."""
    await _run([lease(name)], "revoke", _time(now), name, until)


def ban(names: Collection[str], until: float, patience: float = PATIENCE) -> None:
    """Do the same for several, blocking (for pages, jobs and commands)."""
    with contextlib.closing(for_jobs(patience)) as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.script_load(SCRIPT)
        for name in names:
            pipeline.evalsha(DIGEST, 1, lease(name), "revoke", "", name, until)
        pipeline.execute()


def living(patience: float = PATIENCE) -> list[str]:
    """Return the names of all living sessions, blocking; raise RedisError or OSError."""
    with contextlib.closing(for_jobs(patience)) as client:
        seconds, microseconds = client.time()
        now = int(seconds) + int(microseconds) / 1_000_000
        found: Any = client.zrangebyscore(ALL, f"({now}", "+inf")
    return [str(name) for name in found]


def lease(name: str) -> str:
    """Return where Redis keeps what it knows of a session."""
    return f"lease:{name}"


async def _run(keys: Sequence[str], verb: str, *given: Any) -> list[str]:
    command = (len(keys), *keys, verb, *given)
    try:
        told = await batch().run("EVALSHA", DIGEST, *command)
    except redis.exceptions.NoScriptError:
        told = await batch().run("EVAL", SCRIPT, *command)
    return [str(item) for item in told]


def _bound_to(claim: Claim | None) -> list[str]:
    """Return where the binding is, and the counters of turns: of all, and of this group."""
    if claim is None:
        return ["", "", ""]
    # A group may be long.
    text = ",".join(map(str, claim.group))
    group = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return [claim.binding, TURNS, f"{TURNS}:{group}"]


def _wanted(claim: Claim | None) -> list[str | int]:
    if claim is None:
        return [""]
    old = "" if claim.moved_from is None else claim.moved_from
    return [BOUND_SECONDS, old, len(claim.group), *claim.group, *claim.usable]


def _read(told: Sequence[str], scopes: Sequence[Scope]) -> Admitted | Full | Banned:
    match told:
        case ["in", since, left, is_new, account, is_claimed]:
            bound = _bound(account, is_claimed)
            return Admitted(float(since), float(left), is_new == "1", bound)
        case ["full", seconds, number]:
            return Full(float(seconds), scopes[int(number) - 1])
        case ["revoked", seconds]:
            return Banned(float(seconds))
    raise redis.ResponseError("the limiter's script answered something else")


def _bound(account: str, is_claimed: str) -> Bound:
    return Bound(int(account) if account else None, is_claimed == "1")


def _time(now: float | None) -> str | float:
    return "" if now is None else now
