"""A request that waits for a place: where it may go, and how its wait ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from accounts.pool import Member, Pool
from relay.quota import Place
from relay.request import ClientRequest
from relay.trail import Trail

# The accounts that may be asked by a view of the pool (None: the one known), the best first.
Whom = Callable[[Pool | None], Sequence[Member]]
Ending = Literal["served", "gave_up", "no_room", "gone"]


@dataclass(frozen=True, slots=True)
class Wish:
    """A request with the accounts that it may go to.

    `counted` is the account whose minute knows of it already.
    """

    request: ClientRequest
    trail: Trail
    whom: Whom
    counted: int | None = None


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits; `place` is done when it has one, or None when it waits no longer.

    `own` is the account that it wants alone for now.
    """

    wish: Wish
    own: int | None
    place: asyncio.Future[Place | None]
    members: dict[int, Member] = field(default_factory=dict)
    wanted: tuple[int, ...] = ()
    ended: Ending = "gone"

    @property
    def key(self) -> int:
        """Whose request it is."""
        return self.wish.request.key.id

    def end(self, how: Ending, place: Place | None = None) -> bool:
        """End the wait, and tell whether it was not over already."""
        if self.place.done():
            return False
        self.ended = how
        self.place.set_result(place)
        return True

    def hand_back(self) -> None:
        """Leave a place that came when nobody was there to take it any more."""
        if not self.place.done() or self.place.cancelled() or self.place.exception() is not None:
            return
        if (given := self.place.result()) is not None:
            given.leave()
