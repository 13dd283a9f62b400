"""What `doctor` looks at inside: database, Redis, jobs, credentials, disk and versions."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import django
import redis
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from accounts import pool, resealing, watching
from lib import heartbeat
from lib.http import USER_AGENT
from lib.redis import for_jobs
from proxy_project.doctor import Finding, State
from proxy_project.tasks import BEAT, WORKER

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
PATIENCE = 3.0
# Three signs of life were missed.
SILENT = 3.5 * heartbeat.PERIOD
LITTLE_SPACE, NO_SPACE = 1024**3, 100 * 1024**2
OLDEST_POSTGRES, OLDEST_REDIS = (14, 0), (6, 2)
START = {WORKER: "serve --only worker", BEAT: "serve --only beat"}


def database() -> Iterator[Finding]:
    """Look whether the database answers, has all migrations and can be written to."""
    name, started = "database", time.monotonic()
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        step = "Start the database, or correct DATABASE_URL."
        yield Finding(name, FAILED, f"It cannot be reached: {first}", step)
        return
    waiting = _unapplied()
    if waiting:
        sentence = f"{len(waiting)} migrations are not applied, {waiting[0]} the first of them."
        step = "Start `serve` (it applies them), or run `manage.py migrate`."
        yield Finding(name, FAILED, sentence, step)
        return
    try:
        _write_and_undo()
    except DatabaseError as error:
        sentence = f"It cannot be written to: {type(error).__name__}."
        step = "Look for a full disk, a read-only replica, or a long lock."
        yield Finding(name, FAILED, sentence, step)
        return
    ms = round((time.monotonic() - started) * 1000)
    yield Finding(name, OK, f"It answers, is up to date and can be written to ({ms} ms).")


def _unapplied() -> list[str]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def _write_and_undo() -> None:
    with transaction.atomic():
        expires = timezone.now() + timedelta(minutes=1)
        Session(secrets.token_hex(16), "", expires).save(force_insert=True)
        transaction.set_rollback(True)


def redis_server() -> Iterator[Finding]:
    """Look whether Redis answers, keeps what it has and throws nothing away."""
    name = "redis"
    try:
        with contextlib.closing(for_jobs(PATIENCE)) as client:
            info: dict[str, Any] = client.info()
            seconds, micros = client.time()
            skew = seconds + micros / 1e6 - time.time()
    except (redis.RedisError, OSError) as error:
        step = "Start Redis or `serve`, or correct REDIS_URL."
        yield Finding(name, FAILED, f"It does not answer: {type(error).__name__}.", step)
        return
    troubles = list(_troubles(info))
    yield from (Finding(name, state, told, step) for state, told, step in troubles)
    if not troubles:
        used = int(info.get("used_memory", 0)) // 1024**2
        yield Finding(name, OK, f"It answers, keeps what it has and evicts nothing ({used} MB).")
    yield clock(name, skew)


def _troubles(info: dict[str, Any]) -> Iterator[tuple[State, str, str]]:
    policy, limit = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    if limit and policy != "noeviction":
        told = f"It may throw away request records and jobs (maxmemory-policy {policy})."
        yield FAILED, told, "Set maxmemory-policy noeviction."
    if limit and int(info.get("used_memory", 0)) > 0.8 * limit:
        yield WARNING, "More than 80 % of its memory is used.", "Raise maxmemory."
    if not info.get("aof_enabled"):
        told = "It keeps no append-only file: a restart loses what waits to be written."
        yield WARNING, told, "Set appendonly yes."
    for what in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(what, "ok") != "ok":
            yield FAILED, f"It cannot write to its disk ({what}).", "Look for a full disk."
    if info.get("role") == "slave":
        yield FAILED, "It is a replica and takes no writes.", "Let REDIS_URL lead to the primary."


def clock(of: str, skew: float) -> Finding:
    """Judge how far another clock is ahead of ours, in seconds."""
    name, told = "clock", f"Ours and that of {of} differ by {abs(skew):.1f} s."
    step = "Let both machines follow a time server (chrony, systemd-timesyncd)."
    if abs(skew) < 5:
        return Finding(name, OK, told)
    return Finding(name, WARNING if abs(skew) < 60 else FAILED, told, step)


def jobs() -> Iterator[Finding]:
    """Look whether the worker runs jobs and beat orders them."""
    now = time.time()
    try:
        found = heartbeat.living(now)
    except (redis.RedisError, OSError):
        for name in (WORKER, BEAT):
            yield Finding(name, FAILED, "Unknown: Redis does not answer.", "Mend Redis first.")
        return
    for name in (WORKER, BEAT):
        ages = [max(0.0, now - one.at) for one in found if one.name == name]
        if not ages:
            told = f"It gave no sign of life in the last {heartbeat.GONE:.0f} s."
            step = f"Start `manage.py serve`, or `manage.py {START[name]}`."
            yield Finding(name, FAILED, told, step)
        elif min(ages) > SILENT:
            told = f"Its last sign of life is {min(ages):.0f} s old."
            yield Finding(name, WARNING, told, "Look at its log: does a job take too long?")
        else:
            told = f"{len(ages)} alive, the last sign {min(ages):.0f} s ago."
            yield Finding(name, OK, told)


def credentials() -> Iterator[Finding]:
    """Look whether there are keys, and whether each sealed value opens with one of them."""
    name = "credentials"
    try:
        found = resealing.count()
    except DatabaseError:
        told = "What the keys open is unknown, as the database cannot be read."
        yield Finding(name, FAILED, told, "Mend the database first.")
        return
    every = found.opened + len(found.unopened)
    if found.unopened:
        told = (
            f"{len(found.unopened)} of {every} sealed values open with no key of CREDENTIAL_KEYS."
        )
        step = "Put the lost key back into CREDENTIAL_KEYS, or link these accounts again."
        yield Finding(name, FAILED, told, step)
    elif found.stale:
        told = f"All {every} sealed values open, {found.stale} of them with an older key."
        yield Finding(name, WARNING, told, "Run `manage.py credentials rotate-keys`.")
    else:
        yield Finding(
            name, OK, f"All {every} sealed values open with the first of CREDENTIAL_KEYS."
        )


def accounts() -> Iterator[Finding]:
    """Look whether an account can serve now."""
    name, now = "accounts", timezone.now()
    try:
        members = pool.load().members
    except DatabaseError:
        yield Finding(name, FAILED, "Unknown: the database cannot be read.", "Mend it first.")
        return
    usable = sum(watching.serves(member, now) for member in members)
    told = f"{usable} of {len(members)} can serve now."
    if usable:
        yield Finding(name, OK, told)
    else:
        step = "Link one, or see `manage.py account list` for what keeps them out."
        yield Finding(name, WARNING, told, step)


def disk() -> Iterator[Finding]:
    """Look whether the data folder has space and can be written to."""
    name, folder = "disk", settings.CONFIG.data_dir
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        step = "Correct CAROUSEL_DATA_DIR."
        yield Finding(name, FAILED, f"The data folder: {error.strerror}.", step)
        return
    told, step = f"{free / 1024**3:.1f} GB are free in the data folder.", "Make space."
    if not os.access(folder, os.W_OK | os.X_OK):
        told = "The data folder cannot be written to by this user."
        yield Finding(name, FAILED, told, "Correct its owner, or run this as the same user.")
    elif free < NO_SPACE:
        yield Finding(name, FAILED, told, step)
    else:
        yield Finding(name, WARNING, told, step) if free < LITTLE_SPACE else Finding(name, OK, told)


def versions() -> Iterator[Finding]:
    """Name the versions of what runs, and those that are too old."""
    known = {
        "carousel": USER_AGENT.partition("/")[2],
        "python": platform.python_version(),
        "django": django.get_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    too_old = []
    with contextlib.suppress(DatabaseError):
        server, is_old = _database_version()
        known[connection.vendor] = server
        too_old += [f"PostgreSQL {server}"] if is_old else []
    with contextlib.suppress(redis.RedisError, OSError):
        with contextlib.closing(for_jobs(PATIENCE)) as client:
            info: dict[str, Any] = client.info("server")
        brand = "valkey" if "valkey_version" in info else "redis"
        known[brand] = str(info.get("valkey_version") or info.get("redis_version", "unknown"))
        is_old = brand == "redis" and _numbers(known[brand]) < OLDEST_REDIS
        too_old += [f"Redis {known[brand]}"] if is_old else []
    told = ", ".join(f"{what} {version}" for what, version in known.items()) + "."
    if too_old:
        yield Finding("versions", FAILED, told, f"Too old: {', '.join(too_old)}. Update.")
    else:
        yield Finding("versions", OK, told)


def _database_version() -> tuple[str, bool]:
    if connection.vendor == "sqlite":
        return sqlite3.sqlite_version, False
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = str(cursor.fetchone()[0]).partition(" ")[0]
    return version, _numbers(version) < OLDEST_POSTGRES


def _numbers(version: str) -> tuple[int, int]:
    major, minor, *_ = [*(int(part) for part in version.split(".") if part.isdigit()), 0, 0]
    return major, minor
