"""Starts a simulator process and talks to its control endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5


class Simulator:
    """One running simulator; a context manager that ends the process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        # Plain HTTP to loopback: loading certificates would only cost time.
        self._client = httpx2.Client(
            base_url=url + "/_control/", trust_env=False, verify=False, timeout=10
        )

    @classmethod
    def start(cls, accounts: int = 0) -> Self:
        """Start a process with that many people on a free port and wait until it listens.

        Call it from a thread that outlives the simulator: Linux ends it with that thread.
        """
        command = [sys.executable, "-m", "simulator", "--port", "0", "--die-with-parent"]
        process = subprocess.Popen(
            [*command, "--accounts", str(accounts)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"simulator did not start: exit {process.wait()}")
        return cls(process, json.loads(line)["url"])

    def stop(self) -> int:
        """End the process and return its exit status."""
        self._client.close()
        self.process.terminate()
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def reset(self, *, keep_accounts: bool = False) -> None:
        """Go back to the start state."""
        self._post("reset", {"keep_accounts": keep_accounts})

    def clock(self, moment: datetime | None) -> None:
        """Let its time stand still at that moment; None is the real time again."""
        self._post("clock", {"now": None if moment is None else moment.timestamp()})

    def person(self, email: str, **options: Any) -> dict[str, Any]:
        """Create or change a person; return the account as shown by `accounts()`."""
        return dict(self._post("accounts", {"email": email, **options}))

    def api_key(self, name: str, **options: Any) -> str:
        """Create an API key and return it."""
        return str(self._post("api_keys", {"name": name, **options})["key"])

    def setup_token(self, email: str) -> str:
        """Return a new one-year, inference-only token of a person."""
        return str(self._post("setup_tokens", {"email": email})["token"])

    def authorize(self, url: str, email: str) -> str:
        """Approve an authorize URL as that person; return the `code#state` to paste."""
        return str(self._post("authorize", {"url": url, "account": email})["pasted"])

    def script(
        self,
        match: dict[str, Any] | None = None,
        *,
        times: int | None = 1,
        skip: int = 0,
        **action: Any,
    ) -> int:
        """Add a scripted fault and return its id; `times=None` keeps it for ever."""
        given = {"match": match or {}, "times": times, "skip": skip, "action": action}
        return int(self._post("scripts", given)["id"])

    def scripts(self) -> list[dict[str, Any]]:
        """Return all scripts with their hit counts."""
        return list(self._call("GET", "scripts"))

    def clear_scripts(self) -> None:
        """Remove all scripts."""
        self._call("DELETE", "scripts")

    def limit(
        self, email: str, windows: dict[str, Any] | None = None, **more: dict[str, Any] | None
    ) -> None:
        """Set rate-limit windows: `limit(email, {"5h": {"status": "rejected"}})`."""
        self._post("limits", {"account": email, "windows": {**(windows or {}), **more}})

    def overage(self, email: str, *, in_use: bool = True) -> None:
        """Let paid extra usage serve a person beyond their windows, and say so."""
        self._post("limits", {"account": email, "overage_in_use": in_use})

    def per_minute(self, name: str, **limits: dict[str, Any] | None) -> None:
        """Set an API key's limits: `per_minute(name, requests={"limit": 50, "remaining": 0})`."""
        given = {limit.replace("_", "-"): fields for limit, fields in limits.items()}
        self._post("limits", {"api_key": name, "per_minute": given})

    def expire_access(self, email: str) -> None:
        """End a person's access tokens now."""
        self._post("tokens", {"account": email, "expire_access": True})

    def expire_grant(self, email: str) -> None:
        """Let a person's logins reach their end: the next refresh says the token expired."""
        self._post("tokens", {"account": email, "expire_grant": True})

    def revoke_grant(self, email: str) -> None:
        """Revoke all of a person's logins."""
        self._post("tokens", {"account": email, "revoke_grant": True})

    def access_ttl(self, email: str, seconds: int) -> None:
        """Set the life of a person's future access tokens."""
        self._post("tokens", {"account": email, "access_ttl": seconds})

    def requests(self, path: str | None = None, account: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded requests, oldest first; control calls are not among them."""
        wanted = {"path": path, "account": account}
        query = {name: value for name, value in wanted.items() if value is not None}
        return list(self._call("GET", "requests", params=query))

    def clear_requests(self) -> None:
        """Forget the recorded requests."""
        self._call("DELETE", "requests")

    def files(self) -> list[dict[str, Any]]:
        """Return all uploaded files with `organization_uuid` and `sha256`, oldest first."""
        return list(self._call("GET", "files"))

    def token_ledger(self) -> dict[str, Any]:
        """Return `{"calls", "refreshes", "exchanges"}` of the token endpoint."""
        return dict(self._call("GET", "tokens"))

    def seen(self, text: str) -> int:
        """Return in how many recorded requests the text occurs."""
        answer = self._call("GET", "seen", params={"text": text})
        assert not answer["dropped"], "requests were forgotten; the count proves nothing"
        return int(answer["count"])

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Return all people by e-mail address."""
        return {account["email"]: account for account in self._call("GET", "accounts")}

    def _post(self, name: str, given: dict[str, Any]) -> Any:
        return self._call("POST", name, json=given)

    def _call(self, method: str, name: str, **options: Any) -> Any:
        response = self._client.request(method, name, **options)
        if response.is_error:
            raise RuntimeError(f"simulator refused {method} {name}: {response.text}")
        return response.json()
