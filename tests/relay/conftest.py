"""A relay with accounts and a key; what its tests ask of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async

from accounts import adding, linking, pool
from accounts.models import Account
from sessions_limit import issuing, keys
from sessions_limit.models import ClientKey
from tests.conftest import RunningRelay
from tests.support.simulator import Simulator
from usage import recorder
from usage.models import RequestRecord

CLAUDE_CODE = {"user-agent": "claude-cli/2.1.328 (external, sdk-cli)"}
HOLDER = "holder@example.com"
BETAS = "claude-code-20250219,oauth-2025-04-20, made-up-2099-01-01"
# No serialiser would write it so.
ODD_BODY = b'{ "model":"claude-opus-5-5",\n"max_tokens" : 9,"odd":"\\u00e9\xc3\xa9",' + (
    b'"messages":[{"role":"user","content":"hello"}] }'
)


@dataclass
class Relay:
    """Speaks to the running relay with a valid key, and to the simulator behind it."""

    running: RunningRelay
    simulator: Simulator
    key: str
    accounts: dict[str, Account] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.running.url

    @property
    def http(self) -> httpx2.AsyncClient:
        """A client whose base is the relay."""
        return self.running.client

    async def link(self, *names: str) -> list[Account]:
        """Link accounts by the real OAuth flow; the e-mail is `<name>@example.com`."""
        linked = []
        for name in names:
            self.simulator.person(f"{name}@example.com")
            account = await sync_to_async(self._link)(name)
            self.accounts[name] = account
            linked.append(account)
        return linked

    def _link(self, name: str) -> Account:
        flow = linking.begin(by="test", session="test")
        pasted = self.simulator.authorize(flow.url, f"{name}@example.com")
        linking.complete(flow.id, pasted, session="test")
        return linking.confirm(flow.id, session="test", by="test", name=name)

    async def add_api_key(self, name: str) -> Account:
        """Add an API-key account."""
        secret = self.simulator.api_key(name)
        account = await sync_to_async(adding.add_secret)("api_key", name, secret, "test")
        self.accounts[name] = account
        return account

    async def ask(
        self,
        text: str = "hello",
        *,
        session: str | None = None,
        stream: bool = False,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> httpx2.Response:
        """Send one Messages request as Claude Code would; read the whole answer."""
        sent = {
            "model": "claude-opus-5-5",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
        } | body
        names = CLAUDE_CODE | self.auth | {"content-type": "application/json"}
        if session:
            names["x-claude-code-session-id"] = session
        return await self.http.post(
            "/v1/messages", content=json.dumps(sent), headers=names | (headers or {})
        )

    @property
    def auth(self) -> dict[str, str]:
        """The headers that carry the key."""
        return {"authorization": f"Bearer {self.key}", "anthropic-version": "2023-06-01"}

    async def set(self, name: str, **fields: Any) -> None:
        """Change settings of an account, and let the relay know at once."""
        await Account.objects.filter(pk=self.accounts[name].pk).aupdate(**fields)
        pool.snapshot.reset()

    async def account(self, name: str) -> Account:
        """Return an account as the database has it."""
        return await Account.objects.aget(pk=self.accounts[name].pk)

    def served(self) -> list[str]:
        """Return who was asked for messages, in order."""
        return [r["account"].split("@")[0] for r in self.simulator.requests(path="/v1/messages")]


@pytest.fixture
async def relay(running_relay: RunningRelay, simulator: Simulator) -> Relay:
    """A running relay with a key and no account."""
    _, key = await sync_to_async(keys.create)(name="test", by="test")
    return Relay(running_relay, simulator, key)


@dataclass
class Holder:
    """Somebody with a login of their own and a pass-through key, who speaks through the relay."""

    relay: Relay
    row: ClientKey
    key: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What Claude Code sends with ANTHROPIC_CUSTOM_HEADERS and a login of its own."""
        return CLAUDE_CODE | {
            "x-relay-key": self.key,
            "authorization": f"Bearer {self.token}",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": BETAS,
            "content-type": "application/json",
        }

    async def ask(self, body: bytes = ODD_BODY, **headers: str) -> httpx2.Response:
        """Send a message as Claude Code would."""
        return await self.relay.http.post(
            "/v1/messages?beta=true", content=body, headers=self.headers | headers
        )

    async def get(self, path: str) -> httpx2.Response:
        """Read something."""
        return await self.relay.http.get(path, headers=self.headers)

    async def records(self) -> list[RequestRecord]:
        """Return the relay's records, the oldest first."""
        await self.relay.running.idle()
        await recorder.appender.flushed()
        await sync_to_async(recorder.drain)()
        return [record async for record in RequestRecord.objects.order_by("started_at")]


@pytest.fixture
async def holder(relay: Relay) -> Holder:
    """A holder, beside a pool that could serve as well."""
    await relay.link("ada")
    row, key = await sync_to_async(issuing.create)("own login", by="test", passthrough=True)
    relay.simulator.person(HOLDER)
    token = relay.simulator.setup_token(HOLDER)
    relay.simulator.clear_requests()
    return Holder(relay, row, key, token)
