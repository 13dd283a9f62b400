"""What each account can do: its models, and of each one context, vision and thinking."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseError

from accounts.pool import Member
from lib.snapshot import Snapshot
from relay.mapping import mapped
from relay.model_lists import CHANGED
from relay.models import ModelList

# One model has several names: with the day of its version, with "-latest", or with neither.
VERSION = re.compile(r"-(\d{8}|latest)$", re.ASCII)
# Clients write the long context behind the name; on the wire it is a beta.
CONTEXT = re.compile(r"\[\w+\]$", re.ASCII)
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Ability:
    """One model of one account; `context` and `output` in tokens, None where it is not said."""

    id: str
    name: str
    context: int | None
    output: int | None
    vision: bool | None
    thinking: bool | None


class Offers:
    """The models that each account says it has: their plain names, and as it calls them itself.

    An account that is not in `names` is taken to have every model.
    """

    def __init__(self, names: Mapping[int, Mapping[str, str]] | None = None) -> None:
        self.names = names or {}

    def has(self, member: Member, model: str) -> bool:
        """Tell whether an account may have a model: it lists it, maps it, or does not say.

        A request that names no model (a file) may go anywhere.
        """
        if not model:
            return True
        if member.endpoint is not None and mapped(model, member.endpoint) is not None:
            return True
        names = self.names.get(member.id)
        if names is None:
            return member.endpoint is None or not member.endpoint.model_map
        return plain(model) in names

    def lists(self, member: Member, model: str) -> bool:
        """Tell whether an account itself says that it has a model."""
        return plain(model) in self.names.get(member.id, ())

    def all(self, members: Iterable[Member]) -> list[str]:
        """Return the models that these accounts have by their own word, in alphabetical order."""
        named: set[str] = set()
        for member in members:
            named.update(self.names.get(member.id, {}).values())
            if member.endpoint is not None:
                named |= {ours for ours, _ in member.endpoint.model_map if "*" not in ours}
        return sorted(named)

    async def follow(self, *, max_age: float = FOREVER) -> None:
        """Take over what the database knows by now; keep what there is while it is away."""
        with contextlib.suppress(DatabaseError):
            self.names = await snapshot.get(max_age=max_age)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self.names = {}


def plain(model: str) -> str:
    """Return a model's name without its version and without what clients write behind it."""
    return VERSION.sub("", CONTEXT.sub("", model))


def read(listed: Mapping[str, Any]) -> Ability:
    """Read one entry of a models list; a field that is absent or odd is not said."""
    told = listed.get("capabilities")
    abilities: Mapping[str, Any] = told if isinstance(told, dict) else {}
    name = listed.get("display_name")
    return Ability(
        id=listed["id"],
        name=name if isinstance(name, str) and name else listed["id"],
        context=_count(listed.get("max_input_tokens")),
        output=_count(listed.get("max_tokens")),
        vision=_supported(abilities.get("image_input")),
        thinking=_supported(abilities.get("thinking")),
    )


def of(account: int) -> list[Ability]:
    """Return what one account said it has; empty when that is not known."""
    row = ModelList.objects.filter(account=account).first()
    return [read(listed) for listed in row.data] if row else []


def load() -> Mapping[int, Mapping[str, str]]:
    """Read the names of every account's models from the database."""
    rows = ModelList.objects.filter(account__deleted_at=None).values_list("account_id", "data")
    # A list without a model says nothing.
    return {account: {plain(m["id"]): m["id"] for m in data} for account, data in rows if data}


snapshot: Snapshot[Mapping[int, Mapping[str, str]]] = Snapshot(load, topic=CHANGED)
offers = Offers()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _supported(value: object) -> bool | None:
    supported = value.get("supported") if isinstance(value, dict) else None
    return supported if isinstance(supported, bool) else None
