"""Which account a session is bound to: claimed once in Redis, remembered by the process."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import redis

from lib.batch import batch
from sessions_limit.turns import Turns

BOUND_SECONDS = 3600
SEEN_SECONDS = 5.0
REMEMBERED = 50_000
COUNTER = "sessions:turn"
SCRIPT = (Path(__file__).parent / "bind.lua").read_text(encoding="ascii")
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
log = logging.getLogger(__name__)

_seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
_turns = Turns()


def turn(group: Sequence[int]) -> int:
    """Return the account whose turn it is in this process, for requests without a session."""
    return _turns.next(group)


async def bind(key: int, session: str, fresh: Sequence[int], usable: Sequence[int]) -> int:
    """Return the account of a session: the bound one if `usable`, else the next of `fresh`.

    The claim is atomic over all processes, so parallel first requests of a session land together
    and new sessions take turns exactly; an account that stands in `fresh` twice gets two turns. A
    session seen in the last seconds costs no Redis call. While Redis is away the process goes on by
    itself, and what an emptied one has forgotten it is told again.
    """
    name = _name(key, session)
    known, at = _seen.get(name, (None, 0.0))
    age = time.monotonic() - at
    if known is not None and known in usable and age < BOUND_SECONDS:
        if age < SEEN_SECONDS:
            return known
        fresh = (known,)
    try:
        account = int(await _claim(name, fresh, usable))
    except (redis.RedisError, OSError) as error:
        log.warning("bind session: %s; bound in this process only", type(error).__name__)
        account = turn(fresh)
    _remember(name, account)
    return account


def seen(key: int, session: str) -> int | None:
    """Return the account to which a session is bound as far as this process remembers."""
    account, at = _seen.get(_name(key, session), (None, 0.0))
    return account if time.monotonic() - at < BOUND_SECONDS else None


async def move(key: int, session: str, account: int) -> None:
    """Bind a session to the account that served it after a fail-over."""
    name = _name(key, session)
    _remember(name, account)
    try:
        await batch().run("SET", name, account, "EX", BOUND_SECONDS)
    except (redis.RedisError, OSError) as error:
        log.warning("move session: %s", type(error).__name__)


def reset() -> None:
    """Forget what this process has seen (for tests)."""
    global _turns
    _seen.clear()
    _turns = Turns()


async def _claim(name: str, fresh: Sequence[int], usable: Sequence[int]) -> str:
    given = (3, name, COUNTER, _counter(fresh), BOUND_SECONDS, len(fresh), *fresh, *usable)
    try:
        claimed = await batch().run("EVALSHA", DIGEST, *given)
    except redis.exceptions.NoScriptError:
        claimed = await batch().run("EVAL", SCRIPT, *given)
    return str(claimed)


def _counter(group: Sequence[int]) -> str:
    """Return the name of a group's own counter; a group may be long."""
    text = ",".join(map(str, group))
    return f"{COUNTER}:{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}"


def _name(key: int, session: str) -> str:
    return f"session:{key}:{session}:account"


def _remember(name: str, account: int) -> None:
    _seen[name] = (account, time.monotonic())
    _seen.move_to_end(name)
    if len(_seen) > REMEMBERED:
        _seen.popitem(last=False)
