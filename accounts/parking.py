"""Rotated pairs that could not be committed yet, sealed in Redis so that no crash drops them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import redis

from accounts.oauth import Grant
from lib.crypto import DecryptError, ring
from lib.redis import for_jobs

HASH = "carousel:parked"
SWAPPED, CHANGED = 1, 2
SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[1])
if not now then return 0 end
if now ~= ARGV[2] then return 2 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a refresh brought home: the successor of generation `seen`, under an id of its own.

    Committing the same pair twice makes one row. `refresh_token` is the new one, or the old one
    where the endpoint gave none.
    """

    account: int
    seen: UUID
    answer: Grant
    refresh_token: str = field(repr=False)
    obtained_at: datetime
    id: UUID = field(default_factory=uuid.uuid4)

    @property
    def place(self) -> str:
        """The one place where this pair may lie."""
        return f"{self.account}:{self.seen}"


def park(pair: Pair) -> bool:
    """Put a pair away; return whether it is safe there."""
    text = json.dumps(dataclasses.asdict(pair), default=str)
    try:
        with contextlib.closing(for_jobs()) as client:
            client.hset(HASH, pair.place, ring().seal(text, _bound_to(pair.place)))
    except (redis.RedisError, OSError) as error:
        log.error("park the new token of account:%d: %s", pair.account, type(error).__name__)
        return False
    return True


def find(account: int, seen: UUID) -> Pair | None:
    """Return the parked successor of a generation; raise redis.RedisError if nobody can tell."""
    with contextlib.closing(for_jobs()) as client:
        sealed = client.hget(HASH, f"{account}:{seen}")
    return _open(f"{account}:{seen}", str(sealed)) if sealed else None


def everything() -> list[Pair]:
    """Return all parked pairs that open; none while Redis is away."""
    try:
        with contextlib.closing(for_jobs()) as client:
            parked: dict[str, str] = client.hgetall(HASH)  # type: ignore[assignment]
    except (redis.RedisError, OSError):
        return []
    return [pair for place, sealed in parked.items() if (pair := _open(place, sealed))]


def forget(pair: Pair) -> None:
    """Remove a pair that is committed; one that stays is only committed again, to no effect."""
    shred(pair.account, pair.seen)


def shred(account: int, seen: UUID) -> None:
    """Remove the parked successor of a generation, if there is one."""
    with contextlib.suppress(redis.RedisError, OSError), contextlib.closing(for_jobs()) as client:
        client.hdel(HASH, f"{account}:{seen}")


@dataclass(slots=True)
class Resealed:
    """What came of sealing the parked pairs anew; `unopened` names their places."""

    resealed: int = 0
    remaining: int = 0
    unopened: list[str] = field(default_factory=list)


def reseal() -> Resealed:
    """Seal anew what an older key sealed, unless it changes meanwhile; raise redis.RedisError."""
    found = Resealed()
    with contextlib.closing(for_jobs()) as client:
        swap = client.register_script(SWAP)
        parked: dict[str, str] = client.hgetall(HASH)  # type: ignore[assignment]
        for place, sealed in parked.items():
            try:
                text = ring().open(sealed, _bound_to(place))
            except DecryptError:
                found.unopened.append(place)
                continue
            if not ring().is_stale(sealed):
                continue
            new = ring().seal(text, _bound_to(place))
            # A pair that was committed meanwhile is gone, and stays so.
            state = swap(keys=[HASH], args=[place, sealed, new])
            found.resealed += state == SWAPPED
            found.remaining += state == CHANGED
    return found


def _open(place: str, sealed: str) -> Pair | None:
    try:
        data = json.loads(ring().open(sealed, _bound_to(place)))
    except DecryptError as error:
        log.error("open a parked token: %s", error)
        return None
    answer = data.pop("answer")
    for name in ("expires_at", "grant_ends_at"):
        answer[name] = answer[name] and datetime.fromisoformat(answer[name])
    return Pair(
        account=data["account"],
        seen=UUID(data["seen"]),
        answer=Grant(**answer),
        refresh_token=data["refresh_token"],
        obtained_at=datetime.fromisoformat(data["obtained_at"]),
        id=UUID(data["id"]),
    )


def _bound_to(place: str) -> str:
    return f"parked.pair\0{place}"
