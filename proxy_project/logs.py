"""The log: whatever any library logs comes out in one form, without secrets, one line each."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.parse import unquote, urlsplit

import orjson
import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, WrappedLogger

from lib import redaction
from proxy_project.config import Config

Form = Literal["json", "console"]
# Their standard output is the answer to whoever typed them.
COMMANDS = ("manage", "django-admin")
DEEPEST, MOST_ITEMS = 4, 64
LONGEST_TRACEBACK = 24_000
# Written out, so that nobody's text can end a line, colour it or turn it around. A lone surrogate
# cannot be encoded at all.
INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u2028\u2029\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)
SECRET_NAMES = re.compile(rf"(?i)(?:{redaction.NAMES}|authorization|cookie|token|secret)\Z")
# What is no field: the record's own, and Celery's `data`, which repeats a failed job's traceback.
OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName", "color_message", "data"),
}
TRACEBACK = "exception"
# Nobody but the code decides what these are.
SAFE = ("timestamp", "level", "logger")
# They tell at INFO what our own lines tell, or (Celery's) that nothing has happened, and at DEBUG
# each byte and each parameter of a query.
TALKATIVE = (
    *("httpx2", "httpcore2", "aiohttp", "celery", "kombu", "asyncio", "redis", "django.db"),
)


def settings(config: Config) -> dict[str, Any]:
    """Return Django's LOGGING."""
    level = config.log_level
    quiet = max(level, "WARNING", key=logging.getLevelNamesMapping().__getitem__)
    line = {"()": formatter, "form": config.log_format, "known": known(config)}
    silent: dict[str, Any] = {"level": "CRITICAL"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": line},
        "handlers": {"output": {"()": Output, "formatter": "line"}},
        "root": {"handlers": ["output"], "level": level},
        "loggers": {
            **{name: {"level": quiet} for name in TALKATIVE},
            # These come with handlers of their own, which would know no redaction.
            "django": {"handlers": [], "level": level},
            "django.server": {"handlers": [], "level": level, "propagate": True},
            "uvicorn": {"handlers": [], "level": quiet, "propagate": True},
            "uvicorn.access": {"handlers": [], "propagate": True},
            # Django logs what strangers send: whole paths (the set-up link's too) and tracebacks.
            "django.request": {"level": "ERROR"},
            "django.security": silent,
            "django.security.csrf": silent,
        },
    }


def configure(config: dict[str, Any]) -> None:
    """Set up logging (Django's LOGGING_CONFIG), also for what nobody has caught."""
    logging.config.dictConfig(config)
    if not _is_command():
        sys.excepthook = _uncaught


def output() -> TextIO:
    """Return where the log of this process goes."""
    return sys.stderr if _is_command() else sys.stdout


def chosen(form: str, stream: TextIO | None = None) -> Form:
    """Return the form of the log: what LOG_FORMAT says, or `console` on a terminal only."""
    if form in ("json", "console"):
        return "json" if form == "json" else "console"
    return "console" if (stream or output()).isatty() else "json"


class Output(logging.StreamHandler[TextIO]):
    """Writes lines to where the log of this process goes."""

    def __init__(self) -> None:
        stream = output()
        if hasattr(stream, "reconfigure"):
            # An odd locale must not cost a line.
            stream.reconfigure(errors="backslashreplace")
        super().__init__(stream)

    def handleError(self, record: logging.LogRecord) -> None:
        """Give up the line: the standard way shows its arguments as they are."""


class Formatter(structlog.stdlib.ProcessorFormatter):
    """Makes a line of whatever was logged; a line that cannot be made says where it came from.

    The line of a relayed request takes some 50 us, of which the search for secrets is a third; to
    relay the request takes twenty times that.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        try:
            return super().format(record)
        except Exception as error:
            where = f"{record.pathname}:{record.lineno}"
            record = logging.LogRecord(
                record.name, record.levelno, record.pathname, record.lineno, "", None, None
            )
            record.msg = f"log a line of {where}: {type(error).__name__}"
            return super().format(record)


def said(line: str) -> str:
    """Return what was said outside of the log as a line of it; secrets (a set-up link) stay."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps(
        {"timestamp": at, "level": "info", "logger": "serve", "event": line}
    ).decode()


def formatter(form: str, known: tuple[SecretStr, ...] = ()) -> Formatter:
    """Return the formatter of every handler; `known` are secrets that no pattern would know."""
    redact = redaction.redactor(secret.get_secret_value() for secret in known)

    def redacted(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        text = event.pop(TRACEBACK, "")
        clean = {name: event.pop(name) for name in SAFE}
        clean |= {_name(name): _value(name, value, redact) for name, value in event.items()}
        return clean | {TRACEBACK: _lines(redact(text))} if text else clean

    render = _json if chosen(form) == "json" else _console()
    return Formatter(foreign_pre_chain=[_facts], processors=[redacted, render])


def _facts(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Return what a record says of itself and then its fields, which cannot take its place."""
    record: logging.LogRecord = event["_record"]
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    told: EventDict = {
        "timestamp": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": event["event"],
    }
    for name, value in record.__dict__.items():
        if name not in OWN and name not in told:
            told[name] = value
    raised = event.get("exc_info")
    parts = [_traceback(raised) if isinstance(raised, tuple) else "", event.get("stack_info", "")]
    if text := "\n".join(filter(None, parts)):
        told[TRACEBACK] = text
    return told


def _traceback(raised: tuple[Any, Any, Any]) -> str:
    text = "".join(traceback.format_exception(*raised)).rstrip("\n")
    if len(text) <= LONGEST_TRACEBACK:
        return text
    # What happened stands at the end, where it began at the start; only whole lines stay.
    head, tail = text[: LONGEST_TRACEBACK // 4], text[-LONGEST_TRACEBACK // 2 :]
    return f"{head.rpartition(chr(10))[0]}\n  {redaction.CUT}\n{tail.partition(chr(10))[2]}"


def _value(name: str, value: object, redact: Callable[[str], str], depth: int = 0) -> Any:
    """Return a field as JSON may hold it; what is no plain value is named by its type alone."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # JSON's readers know no larger ones.
        return value if abs(value) < 2**63 else str(value)
    if _is_secret(name):
        return redaction.HIDDEN
    if isinstance(value, str):
        return _plain(redact(value))
    if depth < DEEPEST and isinstance(value, Mapping):
        items = list(value.items())[:MOST_ITEMS]
        return {
            _plain(redact(str(key))): _value(str(key), item, redact, depth + 1)
            for key, item in items
        }
    if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_value("", item, redact, depth + 1) for item in list(value)[:MOST_ITEMS]]
    if isinstance(value, bytes | datetime | Path | BaseException):
        return _plain(redact(str(value)))
    return f"<{type(value).__name__}>"


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return SECRET_NAMES.search(name) is not None


@lru_cache(maxsize=1024)
def _name(name: str) -> str:
    return _plain(name)


def _plain(text: object) -> str:
    return INVISIBLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _lines(text: str) -> str:
    return "\n".join(map(_plain, text.split("\n")))


def _json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return orjson.dumps(event).decode()


def _console() -> Callable[[WrappedLogger, str, EventDict], str]:
    render = structlog.dev.ConsoleRenderer(
        colors=output().isatty(), pad_event_to=0, sort_keys=False
    )

    def console(logger: WrappedLogger, name: str, event: EventDict) -> str:
        text = event.pop(TRACEBACK, "")
        # Indented: no line of it can pass for one of the log's own.
        below = "".join(f"\n    {line}" for line in text.split("\n")) if text else ""
        return str(render(logger, name, event)) + below

    return console


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(__name__).critical("end: %s", kind.__name__, exc_info=(kind, error, trace))


def known(config: Config) -> tuple[SecretStr, ...]:
    """Return the secrets of the settings, which may look like nothing in particular."""
    urls = (config.database_url, config.redis_url)
    passwords = tuple(SecretStr(unquote(urlsplit(url).password or "")) for url in urls)
    own = (config.secret_key, config.key_pepper, config.metrics_token)
    return (*own, *config.credential_keys, *passwords)


def _is_command() -> bool:
    return Path(sys.argv[0]).stem in COMMANDS
