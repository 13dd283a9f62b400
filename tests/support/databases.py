"""Makes the tests' database refuse, lock or go away: full disks, other writers, restarts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

REFUSE = {
    "sqlite": [
        "CREATE TRIGGER refuse BEFORE INSERT ON accounts_credential "
        "BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    ],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger AS "
        "$$ BEGIN RAISE EXCEPTION 'disk full'; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER refuse BEFORE INSERT ON accounts_credential "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}
ACCEPT = {
    "sqlite": ["DROP TRIGGER IF EXISTS refuse"],
    "postgresql": [
        "DROP TRIGGER IF EXISTS refuse ON accounts_credential",
        "DROP FUNCTION IF EXISTS refuse",
    ],
}


def refuse() -> None:
    """Let no credential be stored."""
    _run(REFUSE)


def accept() -> None:
    """Let credentials be stored again."""
    _run(ACCEPT)


@contextmanager
def locked() -> Iterator[None]:
    """Let another writer hold the database: everybody can read, nobody can write."""
    has_it, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute("LOCK TABLE accounts_account IN EXCLUSIVE MODE")
                has_it.set()
                may_end.wait()
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(10)
    try:
        yield
    finally:
        may_end.set()
        thread.join()


@contextmanager
def away() -> Iterator[None]:
    """Cut every connection of the tests' PostgreSQL database and let nobody connect."""
    name = str(connection.settings_dict["NAME"])
    address = urlsplit(settings.CONFIG.database_url)._replace(path="/postgres").geturl()

    def allow(allowed: bool) -> None:
        with psycopg.connect(address, autocommit=True) as admin:
            word = sql.SQL("true" if allowed else "false")
            command = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            admin.execute(command.format(sql.Identifier(name), word))
            if not allowed:
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                admin.execute(query, [name])

    allow(False)
    try:
        yield
    finally:
        allow(True)


@contextmanager
def gone() -> Iterator[None]:
    """Let nobody read or write: on PostgreSQL truly, of SQLite's file by Django's own error."""
    if connection.vendor == "postgresql":
        with away():
            yield
        return
    error = OperationalError("unable to open database file")
    with patch.object(BaseDatabaseWrapper, "_cursor", side_effect=error):
        yield


def _run(statements: dict[str, list[str]]) -> Any:
    with connection.cursor() as cursor:
        for statement in statements[connection.vendor]:
            cursor.execute(statement)
