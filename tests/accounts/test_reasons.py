"""Every reason that the code gives has a sentence and a step that heals it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from accounts import cards, reasons, reserve
from accounts.reasons import HEALS, REASONS, Step
from accounts.states import CUT, RESTORED, Kind, Status
from relay.verdicts import ROWS, Effect

CODE = [path for app in ("accounts", "relay") for path in Path(app).rglob("*.py")]
WRITTEN = re.compile(r'reason="([a-z_]+)"')
STATES = {Effect.LIMIT, Effect.BILLING, Effect.SPEND_CAP, Effect.INVALID, Effect.RENEW}
# A cool-down is no state: the card says that the account rests.
RESTS = {row.reason for row in ROWS if row.effect not in STATES}
GIVEN = {row.reason for row in ROWS if row.effect in STATES} | {
    "admin",
    "idle",
    CUT,
    RESTORED,
    reserve.HEADROOM,
    reserve.OVERAGE,
    "refresh_rejected",
    "refresh_interrupted",
    "expired",
}


def test_no_reason_is_given_that_is_not_known() -> None:
    written = {found for path in CODE for found in WRITTEN.findall(path.read_text())}

    assert written >= {"idle", "expired", "limit_reached"}
    assert written - RESTS - set(REASONS) == set()


@pytest.mark.parametrize("reason", sorted(GIVEN))
def test_a_reason_is_said_in_a_sentence_with_what_heals_it(reason: str) -> None:
    assert reasons.in_words(reason).endswith(".")
    for status in (Status.RATE_LIMITED, Status.INACTIVE, Status.INVALID):
        for kind in Kind:
            assert reasons.heals(cards.step(status, kind, reason), reason).endswith(".")


def test_every_step_is_said() -> None:
    assert set(HEALS) == set(Step) - {Step.NONE}
    assert reasons.heals(Step.NONE, "billing") == ""


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("limit_reached", "What its plan allows is spent."),
        ("limit_reached (5h)", "What its plan allows is spent: the 5-hour window."),
        ("headroom (7d)", "The rest is kept for its owner: the 7-day window."),
        (
            "limit_reached (5h, 7d_new)",
            "What its plan allows is spent: the 5-hour window and 7d_new.",
        ),
        ("something (odd)", "something (odd)"),
        ("", ""),
    ],
)
def test_the_windows_of_a_reason_are_named(reason: str, said: str) -> None:
    assert reasons.in_words(reason) == said
