"""The requests that clients have under way: those of this process, and what the others told."""

from __future__ import annotations

from collections import Counter

from django.conf import settings

from sessions_limit import bans, sessions, sticky
from sessions_limit.bans import Suspect
from sessions_limit.errors import Busy, Revoked
from sessions_limit.identity import Client
from sessions_limit.keys import Key
from sessions_limit.scopes import AGENTS_PER_ADDRESS, ANY
from sessions_limit.sessions import Claims, Lease

SOON = 1.0
CLIENT = "This client has as many requests under way as it may have at a time."
KEY = "This key has as many requests under way as it may have at a time."
SESSION = "This session has as many requests under way as it may have at a time."

# By key, client and address here, and of the others by session too, as old as their last heartbeat.
here: Counter[str] = Counter()
elsewhere: Counter[str] = Counter()


class Visit:
    """One request of a client, from its door to its end: its place, and its session.

    It ends exactly once, by `end`, whatever happened in between. `session` is the name by which its
    session is limited, "" until that is known.
    """

    def __init__(self, key: Key, client: Client) -> None:
        self.key = key
        self.client = client
        self.lease: Lease | None = None
        self.claimed: int | None = None
        self.session = ""
        self._names: tuple[str, ...] = ()
        self._is_counted = False
        self._is_stream = False

    def names(self, session: str | None) -> None:
        """Note which session it says that it belongs to; None for none."""
        self.session = sessions.name_of(self.client, session)

    async def check_ban(self) -> None:
        """Raise Revoked if its session was: what it has open here is over then."""
        try:
            await bans.check(self.suspect)
        except Revoked:
            if lease := sessions.leases.get(self.session):
                lease.since = None
            raise

    @property
    def suspect(self) -> Suspect:
        """Its session, as one that may be revoked."""
        lease = sessions.leases.get(self.session)
        since = lease.since if lease else None
        return Suspect(self.session, self.key.id, self.client.address, since)

    def begin(self) -> None:
        """Take a place under the caps of key, client and address; raise Busy."""
        config, client = settings.CONFIG, self.client
        own = ANY if self.key.max_in_flight is None else self.key.max_in_flight
        # Where the key is the client, its own cap stands in for that of all clients.
        is_own = config.session_client == "key" and own != ANY
        most = ANY if is_own else config.client_max_in_flight
        caps = {_key(self.key.id): (own, KEY), client.name: (most, CLIENT)}
        if client.block:
            caps[f"of block:{client.block}"] = (max(ANY, AGENTS_PER_ADDRESS * most), CLIENT)
        for name, (cap, message) in caps.items():
            _check(here[name], name, cap, message)
        self._names = tuple(caps)
        for name in caps:
            here[name] += 1

    async def join(
        self, session: str | None, *, opens: bool = True, claim: Claims | None = None
    ) -> None:
        """Take a place in a session, and open it unless that is not wanted; raise Refused.

        `claimed` is then the account that the session got just now, if it did.
        """
        lease = sessions.lease_of(self.key, self.client, session)
        _check(lease.in_flight, lease.name, settings.CONFIG.session_max_in_flight, SESSION)
        self.lease = lease
        lease.in_flight += 1
        if opens:
            self.claimed = await sessions.join(lease, self.key, claim)
            self._is_counted = True

    def settled(self, *, is_stream: bool) -> None:
        """Note that the request is one that can be served."""
        if self.lease is None or not self._is_counted:
            return
        self.lease.requests += 1
        if is_stream:
            self._is_stream = True
            self.lease.streams += 1
        if not self.lease.reported:
            sessions.report(self.lease)

    async def withdraw(self) -> None:
        """End it, and its session if that was opened here in vain, with the account it claimed."""
        lease = self.lease if self._is_counted else None
        self.end()
        if lease is None or await sessions.leave(lease):
            return
        if self.claimed is not None:
            await sticky.forget(self.key.id, lease.session)

    def end(self) -> None:
        """Leave every place."""
        for name in self._names:
            here[name] -= 1
            if not here[name]:
                del here[name]
        self._names = ()
        if self.lease is not None:
            self.lease.in_flight -= 1
            self.lease.streams -= self._is_stream
            sessions.drop(self.lease)
            self.lease = None


def of_key(key: int) -> int:
    """Return how many requests a key has under way, in all processes as far as they told."""
    return here[_key(key)] + elsewhere[_key(key)]


def reset() -> None:
    """Forget everything (for tests)."""
    here.clear()
    elsewhere.clear()


def _key(key: int) -> str:
    return f"of key:{key}"


def _check(here: int, name: str, most: int, message: str) -> None:
    if most != ANY and here + elsewhere[name] >= most:
        raise Busy(SOON, message)
