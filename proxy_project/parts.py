"""The child processes of `serve`: what each is called, its command line and its settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings

from proxy_project import logs, valkey
from proxy_project.supervisor import Child

Env = Mapping[str, str]
# Threads: prefork would copy a process of 80 MB per slot, and solo lets one slow poll stop all.
POOL = ("-P", "threads", "-c", "4")
# Gossip and mingle are for clusters whose workers must know each other; ours do not.
ALONE = ("--without-gossip", "--without-mingle")


def environment(redis_url: str) -> Env:
    """Return the environment of all children; the settings reach them by no other way."""
    path = os.pathsep.join(filter(None, (str(settings.BASE_DIR), os.environ.get("PYTHONPATH"))))
    return {
        # Warnings are for developers; Celery's and WhiteNoise's would greet every operator.
        "PYTHONWARNINGS": "ignore",
        **os.environ,
        "CAROUSEL_DATA_DIR": str(settings.CONFIG.data_dir),
        # They write into a pipe; whether somebody reads it on a terminal is known only here.
        "LOG_FORMAT": logs.chosen(settings.CONFIG.log_format, sys.stdout),
        "REDIS_URL": redis_url,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
    }


def private_valkey(socket: Path, data: Path) -> Child:
    """Return a Valkey whose append-only file is in the data folder."""
    folder = data / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    # It warns about the machine's memory settings at every start: shown only when it dies.
    return Child("valkey", valkey.command(socket, folder), dict(os.environ), quiet=True)


def worker(env: Env) -> Child:
    """Return the Celery worker."""
    return Child("worker", [*_celery("worker"), *POOL, *ALONE], _for_jobs(env))


def beat(env: Env, data: Path) -> Child:
    """Return Celery's beat: a child of its own, as one forked by a worker would outlive it."""
    return Child("beat", [*_celery("beat"), "--schedule", str(data / "beat")], _for_jobs(env))


def web(number: int, descriptor: int, env: Env) -> Child:
    """Return one web process on the listening socket that all of them share."""
    argv = [sys.executable, "-m", "proxy_project.web", str(descriptor)]
    return Child(f"web {number}", argv, env, fds=(descriptor,))


def _celery(command: str) -> list[str]:
    base = [sys.executable, "-m", "celery", "-q", "-A", "proxy_project.celery", "--skip-checks"]
    return [*base, command, "--loglevel", "warning"]


def _for_jobs(env: Env) -> Env:
    # A job may wait longer for SQLite's one writer than a request: nobody waits for it.
    return {**env, "SQLITE_BUSY_TIMEOUT": "20"}
