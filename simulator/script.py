"""Scripted faults: which requests they hit and what they do to the answer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .call import Call

MATCH_KEYS = frozenset({"account", "path", "method", "model", "header"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a script does; everything left out keeps the normal behaviour. Times in seconds."""

    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: Any = None
    text: str | None = None
    delay: float = 0.0
    first_byte_delay: float = 0.0
    reset: bool | str = False
    cut_after: int | None = None
    stall_after: int | None = None
    stall_seconds: float | None = None
    error_event: dict[str, Any] | None = None
    after_events: int = 0
    piece: int | None = None
    pace: float = 0.0
    events: int | None = None
    crlf: bool = False
    gzip: bool = False
    omit_stop: bool = False
    process: bool = False
    omit_refresh_token: bool = False
    omit: tuple[str, ...] = ()
    expires_in: Any = None

    @property
    def is_canned(self) -> bool:
        """Whether the script itself is the answer, so that no endpoint need run."""
        return self.body is not None or self.status not in (None, 200)

    @property
    def is_lost(self) -> bool:
        """Whether the connection ends before any head."""
        return bool(self.reset) and self.cut_after is None


NO_ACTION = Action()
ACTION_KEYS = frozenset(item.name for item in fields(Action))


@dataclass(slots=True)
class Script:
    """One script with its counters; `times` None means for ever."""

    id: int
    match: dict[str, Any]
    action: Action
    given: dict[str, Any]
    times: int | None = 1
    skip: int = 0
    seen: int = 0
    hits: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the script as the control endpoint shows it."""
        return {
            "id": self.id,
            "match": self.match,
            "times": self.times,
            "skip": self.skip,
            "seen": self.seen,
            "hits": self.hits,
            "action": self.given,
        }


class Scripts:
    """All live and spent scripts, in the order they were posted."""

    def __init__(self) -> None:
        self.all: list[Script] = []
        self._count = 0

    def add(self, given: dict[str, Any]) -> Script:
        """Add a script from its JSON; raise ValueError naming what is wrong."""
        match = given.get("match") or {}
        action = given.get("action") or {}
        _refuse_unknown("key", given, frozenset({"match", "times", "skip", "action"}))
        _refuse_unknown("match key", match, MATCH_KEYS)
        _refuse_unknown("action key", action, ACTION_KEYS)
        self._count += 1
        script = Script(
            id=self._count,
            match=match,
            action=Action(**action),
            given=action,
            times=given.get("times", 1),
            skip=given.get("skip", 0),
        )
        self.all.append(script)
        return script

    def take(self, call: Call) -> Action:
        """Return the action of the first live script that hits this call, and count the hit."""
        for script in self.all:
            if script.times is not None and script.hits >= script.times:
                continue
            if not _matches(script.match, call):
                continue
            script.seen += 1
            if script.seen <= script.skip:
                continue
            script.hits += 1
            return script.action
        return NO_ACTION

    def clear(self) -> None:
        """Forget all scripts."""
        self.all.clear()


def _matches(match: dict[str, Any], call: Call) -> bool:
    facts = {"account": call.entry.account, "path": call.path, "method": call.method}
    if any(facts[name] != match[name] for name in facts.keys() & match.keys()):
        return False
    if "model" in match and call.peek().get("model") != match["model"]:
        return False
    wanted: dict[str, str | None] = match.get("header", {})
    return all(call.headers.get(name) == value for name, value in wanted.items())


def _refuse_unknown(what: str, given: dict[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown {what}: {', '.join(unknown)}")
