"""The demo: a throwaway data folder, the simulator as upstream and three accounts linked to it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy_project.config import forget_settings
from proxy_project.supervisor import Child

FOLDER = Path("var/demo")
MARKER = "made-by-serve-demo"
SETTINGS_FILE = "settings.env"
LOCK = "serve.lock"
ACCOUNTS = 3
MODEL = "claude-sonnet-4-6"


class NotOurs(Exception):
    """The demo's folder holds something that the demo did not make."""


def prepare() -> None:
    """Replace every setting of this process by the demo's own; call it before Django starts.

    Nothing of the operator's `.env`, environment or data folder reaches the demo.
    """
    forget_settings()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    os.environ |= {
        "CAROUSEL_DATA_DIR": str(FOLDER),
        "SECRET_KEY": secrets.token_hex(32),
        "KEY_PEPPER": secrets.token_hex(32),
        "CREDENTIAL_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
        "UPSTREAM_BASE_URL": url,
        "OAUTH_AUTHORIZE_URL": f"{url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{url}/v1/oauth/token",
    }


def check(folder: Path) -> None:
    """Raise NotOurs unless `folder` is missing, empty or left by an earlier demo."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise NotOurs(f"{folder} is not a folder; the demo would have to delete it")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names - {LOCK} and MARKER not in names:
        raise NotOurs(f"{folder} was not made by the demo, which would delete it; move it away")


def clear(folder: Path) -> None:
    """Empty the checked folder but for the lock we hold, and mark it as the demo's."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (LOCK, MARKER):
            path.unlink()
    (folder / MARKER).touch()


def keep_settings(folder: Path) -> None:
    """Write the demo's settings into its folder, so that commands can work on its pool."""
    names = (
        "CAROUSEL_DATA_DIR",
        "SECRET_KEY",
        "KEY_PEPPER",
        "CREDENTIAL_KEYS",
        "UPSTREAM_BASE_URL",
        "OAUTH_AUTHORIZE_URL",
        "OAUTH_TOKEN_URL",
    )
    path = folder / SETTINGS_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.writelines(f"{name}={os.environ[name]}\n" for name in names)


def command() -> str:
    """Return a command line that lists the demo's accounts."""
    python = Path(sys.executable)
    with contextlib.suppress(ValueError):
        python = python.relative_to(Path.cwd())
    return f"CAROUSEL_ENV_FILE={FOLDER / SETTINGS_FILE} {python} {sys.argv[0]} account list"


def simulator(url: str, env: Mapping[str, str]) -> Child:
    """Return the simulator as a child; it listens where the settings expect the upstream."""
    port = str(urlsplit(url).port)
    argv = [sys.executable, "-m", "simulator", "--port", port, "--accounts", str(ACCOUNTS)]
    return Child("simulator", [*argv, "--die-with-parent"], env, quiet=True)


def answers(url: str) -> bool:
    """Return whether the simulator is up."""
    try:
        _control(url, "accounts")
    except OSError:
        return False
    return True


def link_accounts(url: str) -> None:
    """Link every account of the simulator as an operator would, by the real OAuth flow."""
    from accounts import linking

    for person in _control(url, "accounts"):
        flow = linking.begin(by="demo", session="demo")
        pasted = _control(url, "authorize", url=flow.url, account=person["email"])["pasted"]
        linking.complete(flow.id, pasted, session="demo")
        linking.confirm(flow.id, session="demo", by="demo", name=person["email"].partition("@")[0])


def make_key() -> str:
    """Return a fresh relay key."""
    from sessions_limit import keys

    _, plaintext = keys.create(name="demo", by="demo")
    return plaintext


def curl(base: str, key: str) -> str:
    """Return a command line that streams one answer through the relay."""
    body = {
        "model": MODEL,
        "max_tokens": 256,
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    return (
        f"curl -N {base}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' "
        f"-H 'content-type: application/json' -d '{json.dumps(body)}'"
    )


def _control(base: str, verb: str, /, **given: str) -> Any:
    request = urllib.request.Request(f"{base}/_control/{verb}")
    if given:
        request.data = json.dumps(given).encode()
        request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
