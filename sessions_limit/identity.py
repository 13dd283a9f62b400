"""Which conversation a request belongs to; pure."""

from __future__ import annotations

import re

import msgspec

LONGEST = 128
SHAPE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
# Claude Code before about 2.1.78 wrote the three identities into one word.
OLD_USER_ID = re.compile(r"user_[a-fA-F0-9]{64}_account_.*?_session_([a-f0-9-]+)")


class _UserId(msgspec.Struct):
    session_id: str = ""


def session_of(header: str | None, user_id: object) -> str | None:
    """Return the session id of a request, or None when it names none.

    `header` is `x-claude-code-session-id`, `user_id` the body's `metadata.user_id` (any JSON). An
    id of another shape than a short plain word counts as none.
    """
    if header is not None:
        return header if SHAPE.fullmatch(header) else None
    if not isinstance(user_id, str) or len(user_id) > 1024:
        return None
    old = OLD_USER_ID.fullmatch(user_id)
    session = old[1] if old else _from_json(user_id)
    return session if SHAPE.fullmatch(session) else None


def _from_json(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=_UserId).session_id
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ""
