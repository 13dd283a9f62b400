"""Which account a session is bound to: claimed once in Redis, remembered by the process."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

import redis

from lib.batch import batch
from sessions_limit import limiter
from sessions_limit.limiter import BOUND_SECONDS, Bound, Claim
from sessions_limit.turns import Turns

SEEN_SECONDS = 5.0
REMEMBERED = 50_000
log = logging.getLogger(__name__)

_seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
_turns = Turns()


def turn(group: Sequence[int]) -> int:
    """Return the account whose turn it is in this process, for requests without a session."""
    return _turns.next(group)


async def bind(key: int, session: str, fresh: Sequence[int], usable: Sequence[int]) -> int:
    """Return the account of a session: the bound one if `usable`, else the next of `fresh`.

    A session seen in the last seconds costs no Redis call. While Redis is away the process goes on
    by itself, without waiting where it knows the account, and what an emptied Redis has forgotten
    it is told again.
    """
    name = binding(key, session)
    account, age = _known(name)
    if account in usable and age < SEEN_SECONDS:
        return account
    if account in usable and batch().is_failing:
        remember(name, account)
        return account
    return await _bind(claim(key, session, fresh, usable))


async def rebind(
    key: int, session: str, old: int, fresh: Sequence[int], usable: Sequence[int]
) -> int:
    """Return the account of a session that has just claimed `old`, and should not have."""
    return await _bind(Claim(binding(key, session), fresh, usable, moved_from=old))


def claim(key: int, session: str, fresh: Sequence[int], usable: Sequence[int]) -> Claim:
    """Return what a session asks Redis for: what this process knows of it wins over its turn."""
    name = binding(key, session)
    account, _ = _known(name)
    return Claim(name, (account,) if account in usable else fresh, usable)


def remember(name: str, account: int) -> None:
    """Note the account of a binding, as Redis told it."""
    _seen[name] = (account, time.monotonic())
    _seen.move_to_end(name)
    if len(_seen) > REMEMBERED:
        _seen.popitem(last=False)


def seen(key: int, session: str) -> int | None:
    """Return the account to which a session is bound as far as this process remembers."""
    account, _ = _known(binding(key, session))
    return account or None


def forget_ended() -> None:
    """Drop the bindings that have ended."""
    end = time.monotonic() - BOUND_SECONDS
    while _seen and next(iter(_seen.values()))[1] <= end:
        _seen.popitem(last=False)


async def move(key: int, session: str, account: int) -> None:
    """Bind a session to the account that served it after a fail-over."""
    name = binding(key, session)
    remember(name, account)
    try:
        await batch().run("SET", name, account, "EX", BOUND_SECONDS)
    except (redis.RedisError, OSError) as error:
        log.warning("move session: %s", type(error).__name__)


async def forget(key: int, session: str) -> None:
    """Leave the account that a session has claimed in vain."""
    name = binding(key, session)
    _seen.pop(name, None)
    try:
        await batch().run("DEL", name)
    except (redis.RedisError, OSError) as error:
        log.warning("forget session: %s", type(error).__name__)


def binding(key: int, session: str) -> str:
    """Return where Redis keeps the account of a key's session."""
    return f"session:{key}:{session}:account"


def reset() -> None:
    """Forget what this process has seen (for tests)."""
    global _turns
    _seen.clear()
    _turns = Turns()


async def _bind(wanted: Claim) -> int:
    try:
        bound = await limiter.bind(wanted)
    except (redis.RedisError, OSError) as error:
        log.warning("bind session: %s; bound in this process only", type(error).__name__)
        bound = Bound(turn(wanted.group))
    assert bound.account is not None, "a claim has a group"
    remember(wanted.binding, bound.account)
    return bound.account


def _known(name: str) -> tuple[int, float]:
    """Return the account and how many seconds ago it was told; 0 stands for none."""
    account, at = _seen.get(name, (0, 0.0))
    age = time.monotonic() - at
    return (account, age) if age < BOUND_SECONDS else (0, age)
