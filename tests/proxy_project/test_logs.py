"""Whoever logs, and whatever: one line in one form, which holds no secret and nobody can forge."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import signals
from django.conf import settings

import proxy_project.celery
from proxy_project import logs
from tests.relay.conftest import Relay, relay

__all__ = ["relay"]

TOKEN = "sk-ant-oat01-" + "Ab3_" * 12
LIBRARIES = (
    *("uvicorn.error", "uvicorn.access", "celery.app.trace", "celery.beat", "django.request"),
    *("django.server", "django", "httpx2", "aiohttp.client", "kombu", "asyncio", "py.warnings"),
    *("relay.record", "accounts.tokens", "anything.else"),
)
Log = Callable[..., list[str]]


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Return a function that logs under the product's configuration, and the lines it made."""
    root = logging.getLogger()
    kept = list(root.handlers), root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    config = settings.CONFIG.model_copy(update={"log_format": request.param})
    logging.config.dictConfig(logs.settings(config))
    (output,) = root.handlers

    def write(name: str, level: int, text: str, *args: Any, **how: Any) -> list[str]:
        # pytest puts handlers of its own back for each phase of a test.
        root.handlers[:] = [output]
        start = written.tell()
        logging.getLogger(name).log(level, text, *args, **how)
        return written.getvalue()[start:].splitlines()

    yield write
    root.handlers[:], root.level = kept
    logging.config.dictConfig(settings.LOGGING)
    root.handlers[:] = kept[0]


@pytest.mark.parametrize("name", LIBRARIES)
def test_no_library_leaks_a_secret(log: Log, name: str) -> None:
    extra = {
        "url": f"https://u:{TOKEN}@h/",
        "headers": {"authorization": TOKEN},
        "refresh_token": 7,
    }

    lines = log(name, logging.CRITICAL, "call %s with %r", TOKEN, (b"x", TOKEN), extra=extra)

    assert len(lines) == 1
    assert "call" in lines[0]
    assert "Ab3_" not in lines[0]


def test_no_traceback_leaks_a_secret(log: Log) -> None:
    try:
        try:
            raise KeyError(TOKEN)
        except KeyError as error:
            raise ValueError(f"refused\nAuthorization: Bearer {TOKEN}") from error
    except ValueError:
        told = "\n".join(log("relay.asgi", logging.ERROR, "serve", exc_info=True))

    assert "ValueError: refused" in told
    assert "KeyError" in told
    assert "Ab3_" not in told


@pytest.mark.parametrize(
    "text",
    [
        *("a\n2026-11-20 INFO forged", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\x85b"),
        *("a\u061cb", "a\ufeffb", "a\u2060b", "a\xadb", "a\U000e0041b"),
    ],
)
def test_a_strangers_text_can_forge_no_line(log: Log, text: str) -> None:
    lines = log("relay.asgi", logging.ERROR, "model: %s", text, extra={"model": text})

    assert len(lines) == 1
    assert not any(
        sign in lines[0] for sign in "\n\r\x1b\u2028\u202e\x85\u061c\ufeff\u2060\xad\U000e0041"
    )


def test_a_strangers_exception_cannot_begin_a_line(log: Log) -> None:
    try:
        raise ValueError("a\n2026-11-20T00:00:00Z [info] forged\x1b[2J")
    except ValueError:
        _, *below = log("relay.asgi", logging.ERROR, "serve", exc_info=True) + [""]

    assert all(line.startswith("    ") for line in below if line)
    assert not any("\x1b" in line for line in below)


def test_a_line_that_cannot_be_made_is_told_of_without_its_arguments(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = log("relay.asgi", logging.ERROR, "count %d", TOKEN)

    assert "log a line of " in lines[0]
    assert "Ab3_" not in lines[0] + capsys.readouterr().err


def test_fields_are_fields_and_cannot_take_the_place_of_others() -> None:
    record = logging.makeLogRecord(
        {"name": "a.b", "levelname": "INFO", "msg": "x %s", "args": ("y",), "level": "z", "n": 3}
        | {"event": "forged", "deep": [{"key": b"b", "o": object(), "big": 2**70}], "nan": 0.5}
    )

    line = json.loads(logs.formatter("json").format(record))

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "a.b",
        "event": "x y",
        "n": 3,
        "deep": [{"key": "b'b'", "o": "<object>", "big": str(2**70)}],
        "nan": 0.5,
    }


def test_the_settings_own_secrets_are_hidden_whatever_they_look_like() -> None:
    config = settings.CONFIG.model_copy(update={"redis_url": "redis://:simple word@h/0"})
    line = logs.formatter("json", logs.known(config))
    texts = (config.secret_key.get_secret_value(), config.key_pepper.get_secret_value())

    for text in (*texts, "simple word"):
        assert text not in line.format(logging.makeLogRecord({"msg": f"see {text}!"}))


def test_celery_sets_up_no_logging_of_its_own() -> None:
    receivers = [receiver() for _, receiver in signals.setup_logging.receivers]

    assert proxy_project.celery._log_like_all_others in receivers


@pytest.mark.parametrize(
    ("form", "terminal", "chosen"),
    [
        ("auto", True, "console"),
        ("auto", False, "json"),
        ("json", True, "json"),
        ("console", False, "console"),
    ],
)
def test_people_at_a_terminal_get_lines_for_people(form: str, terminal: bool, chosen: str) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]

    assert logs.chosen(form, stream) == chosen


async def test_each_relayed_request_is_one_line_of_fields(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "relay.record")
    account, *_ = await relay.link("ada")
    answer = await relay.ask("hello", session="s-1", stream=True)
    relay.simulator.script({"path": "/v1/messages"}, status=400)
    await relay.ask("hello")
    await relay.running.idle()

    lines = [json.loads(logs.formatter("json").format(record)) for record in caplog.records]
    served, refused = [line for line in lines if line["logger"] == "relay.record"]

    assert served["request_id"] == answer.headers["x-relay-request-id"]
    assert (served["account_id"], served["session"]) == (account.pk, "s-1")
    assert (served["status"], served["ended"], served["stream"]) == (200, "complete", True)
    assert (served["verdicts"], served["attempts"]) == (["D37"], 1)
    assert 0 <= served["first_byte_ms"] <= served["duration_ms"] < 20_000
    assert served["input_tokens"] > 0
    assert served["output_tokens"] > 0
    assert isinstance(served["key_id"], int)
    assert refused["status"] == 400
    assert "ada" not in json.dumps(lines)
