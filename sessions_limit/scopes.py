"""What a session counts in, and how many there may be of each: by settings, and its key's terms."""

from __future__ import annotations

import math

from django.conf import settings

from sessions_limit.errors import Full
from sessions_limit.identity import Client
from sessions_limit.limiter import ALL, Scope

# How many clients with different User-Agents one address may pass for.
AGENTS_PER_ADDRESS = 4
ANY = -1


def scopes_of(client: Client, key: int, own: int | None = None) -> list[Scope]:
    """Return what a session of a client counts in; `own` is what its key says of it."""
    config = settings.CONFIG
    most = config.session_max_concurrent
    is_key = config.session_client == "key"
    found = [
        (ALL, config.session_max_total or ANY),
        (f"sessions:client:{client.name}", own if is_key and own is not None else most),
    ]
    if not is_key:
        found.append((f"sessions:key:{key}", ANY if own is None else own))
    if client.block:
        found.append((f"sessions:block:{client.block}", max(ANY, AGENTS_PER_ADDRESS * most)))
    return [Scope(name, most if config.session_limit else ANY) for name, most in found]


def full(scope: Scope, seconds: float) -> Full:
    """Return the refusal where a scope has all its sessions, and none is free for so long."""
    if scope.most == 0:
        return Full(seconds, "This client may not open a session.")
    whose = "This relay" if scope.name == ALL else "This client"
    return Full(
        seconds,
        f"{whose} has {scope.most} sessions at a time at most, and all are in use. "
        f"The first one is free in {math.ceil(seconds)} s if it is not used until then.",
    )
