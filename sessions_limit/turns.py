"""Whose turn it is within a group of accounts, in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

REMEMBERED = 1000


class Turns:
    """Counts each group for itself: a counter of all would starve some when groups alternate.

    A group that was not seen before begins where the count of all stands, so that groups that come
    and go do not each begin with their first account.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._all = 0

    def next(self, group: Sequence[int]) -> int:
        """Return the account of a group whose turn it is."""
        if len(group) == 1:
            return group[0]
        key = tuple(group)
        turn = self._groups.get(key, self._all)
        self._all += 1
        self._groups[key] = turn + 1
        self._groups.move_to_end(key)
        if len(self._groups) > REMEMBERED:
            self._groups.popitem(last=False)
        return key[turn % len(key)]
