"""Of a login that passes through nothing is kept, logged or shown."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from lib.redis import for_jobs
from proxy_project import logs
from relay.request import ClientRequest
from sessions_limit.keys import Key
from tests.relay.conftest import HOLDER, ODD_BODY, Holder

STREAMED = ODD_BODY.replace(b'"odd"', b'"stream":true,"odd"')


async def test_nothing_of_a_login_is_kept_or_logged(
    holder: Holder, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logs.formatter("json"))
    logging.getLogger().addHandler(handler)
    settings.CONFIG = settings.CONFIG.model_copy(update={"relay_debug_headers": True})
    answers = [
        await holder.ask(),
        await holder.ask(STREAMED),
        await holder.ask(b"{"),
        await holder.get("/v1/nonsense"),
        await holder.get("/v1/models"),
    ]
    holder.relay.simulator.expire_access(HOLDER)
    answers.append(await holder.ask())
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": "http://127.0.0.1:1"})
    answers.append(await holder.ask())

    records = await holder.records()
    kept = "\n".join(await sync_to_async(_rows)() + await sync_to_async(_redis)())
    logging.getLogger().removeHandler(handler)

    assert [answer.status_code for answer in answers] == [200, 200, 400, 404, 200, 401, 502]
    assert answers[0].headers["x-relay-account"] == "passthrough"
    assert len(records) == 7
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    shown = "\n".join(f"{answer.headers} {answer.text}" for answer in answers)
    for secret in (holder.key, holder.token):
        for text in (kept, logged, lines.getvalue(), shown):
            assert secret[8:40] not in text
    # These were looked at.
    assert records[0].request_id in kept
    assert records[0].request_id in logged
    assert "serve request" in lines.getvalue()


def _rows() -> list[str]:
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found += map(repr, cursor.fetchall())
    return found


def _redis() -> list[str]:
    read = {
        "string": lambda client, key: client.get(key),
        "hash": lambda client, key: client.hgetall(key),
        "list": lambda client, key: client.lrange(key, 0, -1),
        "set": lambda client, key: client.smembers(key),
        "zset": lambda client, key: client.zrange(key, 0, -1),
        "stream": lambda client, key: client.xrange(key),
    }
    with contextlib.closing(for_jobs()) as client:
        return [f"{key!r} {read[client.type(key)](client, key)!r}" for key in client.scan_iter()]


def test_a_request_shows_no_header() -> None:
    key = Key(1, "own", timezone.now(), is_passthrough=True)
    headers = ((b"authorization", b"Bearer sk-ant-oat01-mine"), (b"x-relay-key", b"rk_mine"))

    shown = repr(ClientRequest("rly", key, "POST", "/v1/messages", "/", headers, b"prompt"))

    assert "mine" not in shown
    assert "prompt" not in shown
