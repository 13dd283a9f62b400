"""Looks at everything Carousel stands on, and says of each thing how it is and what to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import connections

from lib.redaction import redactor
from proxy_project import logs


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing: its state, a sentence, and the next step unless it is well."""

    check: str
    state: State
    sentence: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; it may take so many seconds."""

    name: str
    look: Callable[[], Iterable[Finding]]
    seconds: float = 5.0


def examine(checks: Iterable[Check]) -> list[Finding]:
    """Run all checks at once, each in its own time, and return what was found, in their order.

    A check that hangs is left behind in its thread: it holds up neither the others nor the end of
    the process. Nothing in the findings is a secret; they are made to be passed on.
    """
    started = time.monotonic()
    running = [(check, _begin(check)) for check in checks]
    redact = redactor(secret.get_secret_value() for secret in logs.known(settings.CONFIG))
    findings = []
    for check, (thread, found) in running:
        thread.join(max(0.0, started + check.seconds - time.monotonic()))
        # Taken at once: a late one must not change what is being told.
        told = list(found) if not thread.is_alive() else [_late(check)]
        findings += [
            replace(finding, sentence=redact(finding.sentence), next=redact(finding.next))
            for finding in told
        ]
    return findings


def is_well(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing has failed."""
    return all(finding.state is not State.FAILED for finding in findings)


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the findings as plain data."""
    findings = list(findings)
    return {"ok": is_well(findings), "checks": [asdict(finding) for finding in findings]}


def lines(findings: Iterable[Finding]) -> list[str]:
    """Return the findings as lines for people."""
    told = []
    for finding in findings:
        told.append(f"{finding.state.value:<8} {finding.check:<14} {finding.sentence}")
        if finding.next:
            told.append(f"{'':<24}Next: {finding.next}")
    return told


def _begin(check: Check) -> tuple[threading.Thread, list[Finding]]:
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check.look())
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0]
            sentence = f"It could not be looked at: {type(error).__name__}: {text}"
            found.append(Finding(check.name, State.FAILED, sentence, "See the lines above."))
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    return thread, found


def _late(check: Check) -> Finding:
    sentence = f"It did not answer within {check.seconds:g} s."
    step = "Look whether what it depends on hangs, or whether a firewall drops its packets."
    return Finding(check.name, State.FAILED, sentence, step)
