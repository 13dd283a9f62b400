"""The whole product, run as an operator does: `serve`, and the other commands beside it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.support.serving import ROOT, SETTINGS, Serve
from tests.support.simulator import Simulator


class Product:
    """A running pool on a data folder (and, if the tests run on it, a PostgreSQL) of its own."""

    def __init__(
        self,
        folder: Path,
        simulator: Simulator,
        *,
        workers: int = 2,
        postgres: str = "",
        redis: str = "",
    ) -> None:
        self.folder = folder
        self.simulator = simulator
        # Commands find the private Valkey of `serve` by the data folder.
        self.settings = {
            "UPSTREAM_BASE_URL": simulator.url,
            "OAUTH_AUTHORIZE_URL": f"{simulator.url}/oauth/authorize",
            "OAUTH_TOKEN_URL": f"{simulator.url}/v1/oauth/token",
            "DRAIN_GRACE": "0",
            "DRAIN_SECONDS": "2",
        } | _database(postgres or os.environ.get("DATABASE_URL", ""))
        if redis:
            self.settings["REDIS_URL"] = redis
        self.serve = Serve(folder, "--port", "0", "--workers", str(workers), **self.settings)
        self.port = self.serve.is_ready()
        self.url = f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str, given: str = "") -> Any:
        """Run `manage.py ... --json` and return its answer."""
        return json.loads(self._output(arguments, given))

    def lines(self, *arguments: str) -> list[Any]:
        """Run `manage.py ... --json` and return the objects of its lines."""
        return [json.loads(line) for line in self._output(arguments, "").splitlines()]

    def _output(self, arguments: Sequence[str], given: str) -> str:
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        env |= {"CAROUSEL_DATA_DIR": str(self.folder / "data")} | self.settings
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", *arguments, "--json"],
            cwd=self.folder,
            env=env,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def link(self, email: str) -> Any:
        """Link an account by `account link`, whose address is opened at the simulator."""
        self.simulator.person(email)
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        env |= {"CAROUSEL_DATA_DIR": str(self.folder / "data")} | self.settings
        process = subprocess.Popen(
            [sys.executable, ROOT / "manage.py", "account", "link", "--json"],
            cwd=self.folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("http"))
        pasted = self.simulator.authorize(line.strip(), email)
        answer, errors = process.communicate(pasted + "\n", timeout=30)
        assert process.returncode == 0, errors
        return json.loads(answer)

    def key(self, name: str = "test") -> str:
        """Make a relay key."""
        return str(self.manage("key", "create", "--name", name)["key"])

    def account(self, name: str) -> dict[str, Any]:
        """Return one account as `account list` shows it."""
        rows = self.manage("account", "list")
        return next(row for row in rows if row["name"].startswith(name))

    def end(self) -> None:
        """Stop everything."""
        with contextlib.suppress(ProcessLookupError):
            self.serve.end()


def _database(address: str) -> dict[str, str]:
    """Return the settings of a fresh database on that server; SQLite's (none) without one."""
    if not address:
        return {}
    name = f"carousel_{secrets.token_hex(6)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return {
        "DATABASE_URL": urlsplit(address)._replace(path=f"/{name}").geturl(),
        "SECRET_KEY": secrets.token_hex(32),
        "KEY_PEPPER": secrets.token_hex(32),
        "CREDENTIAL_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
