"""The real Claude Code keeps its own login: the relay passes it through, and answers with it."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Claude

pytestmark = pytest.mark.e2e

HOLDER = "holder@example.com"


@dataclass
class Signed(Claude):
    """Claude Code with a login of its own, and the relay's key beside it."""

    token: str = ""

    def environment(self) -> dict[str, str]:
        """Return what docs/clients.md says to set, and the login."""
        names = super().environment() | {
            "ANTHROPIC_CUSTOM_HEADERS": f"x-relay-key: {self.key}",
            "CLAUDE_CODE_OAUTH_TOKEN": self.token,
        }
        del names["ANTHROPIC_AUTH_TOKEN"]
        return names


@pytest.fixture
def signed(claude: Callable[[], Claude], tmp_path: Path) -> Signed:
    one = claude()
    one.product.simulator.person(HOLDER)
    name = f"own {uuid.uuid4().hex[:6]}"
    key = one.product.manage("key", "create", "--name", name, "--passthrough")["key"]
    token = one.product.simulator.setup_token(HOLDER)
    return Signed(one.product, one.tap, key, tmp_path / "home", name, token)


def _messages(one: Claude) -> list[dict[str, Any]]:
    return one.product.simulator.requests(path="/v1/messages")


def _kept(one: Claude) -> bytes:
    """Return all that the product has written: its files, and what it said."""
    files = [path.read_bytes() for path in one.product.folder.rglob("*") if path.is_file()]
    return b"\n".join([*files, *map(str.encode, one.product.serve.said)])


def test_it_works_with_passthrough_on_its_own_plan_and_sees_its_own_limits(signed: Signed) -> None:
    done = signed.ask("bash: echo carousel-$((40 + 2))", "--allowedTools", "Bash")
    served = _messages(signed)
    window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": int(time.time()) + 900}}
    signed.product.simulator.limit(HOLDER, window)

    spent = signed.ask("reply: never")

    assert "carousel-42" in done.result
    assert [request["account"] for request in served] == [HOLDER] * 2
    sent = [hashlib.sha256(body).hexdigest() for body in signed.tap.bodies() if body]
    assert sent[:2] == [request["body_sha256"] for request in served]
    for request in served:
        names = {name.lower(): value for name, value in request["headers"]}
        assert names["authorization"] == f"Bearer {signed.token}"
        assert "oauth-2025-04-20" in names["anthropic-beta"]
        assert "x-relay-key" not in names
    assert signed.product.simulator.seen(signed.key) == 0
    # It knows that the limit is its holder's own, and does not try again.
    assert spent.is_error
    assert "hit your" in spent.result
    assert "resets" in spent.result
    assert len(_messages(signed)) == 3
    assert {row["status"] for row in signed.product.manage("account", "list")} == {"active"}
    kept = _kept(signed)
    assert signed.key_name.encode() in kept
    assert signed.token.encode() not in kept
    assert signed.key.encode() not in kept
