"""What is known of one attempt's answer before anything goes to the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from providers.base import Limits


class Failed(Enum):
    """How an attempt ended that brought no answer."""

    NOT_CONNECTED = auto()
    NO_PROXY = auto()
    STALE = auto()
    LOST = auto()
    TIMED_OUT = auto()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one attempt's answer before anything went to the client.

    `message` is in lower case. `event` is the error type when a stream began with an error event.
    `is_json` is None when there was no body at all.
    """

    failed: Failed | None = None
    status: int = 0
    error: str = ""
    code: str = ""
    message: str = ""
    event: str = ""
    is_json: bool | None = None
    has_id: bool = True
    malformed: bool = False
    ended_early: bool = False
    can_refresh: bool = True
    limits: Limits = field(default_factory=Limits)
