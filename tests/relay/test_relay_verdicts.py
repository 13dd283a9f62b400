"""What an upstream's answer means: the decision table, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import Limits, Window
from relay.cooldowns import UNKNOWN_LIMIT, limited_until
from relay.errors import (
    PoolLimited,
    PoolUnavailable,
    UpstreamBlocked,
    UpstreamConnect,
    UpstreamProtocol,
    UpstreamTimeout,
)
from relay.facts import Facts, Failed
from relay.verdicts import ROWS, Effect, Row, judge

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rejected(*names: str, **limits: object) -> Limits:
    """Limits of an answer that was refused for these windows; the others are open."""
    windows = tuple(
        Window(name, "rejected" if name in names else "allowed")
        for name in sorted({"5h", "7d", *names})
    )
    return Limits(status="rejected", windows=windows, **limits)  # type: ignore[arg-type]


def refused(status: int, message: str = "", **facts: object) -> Facts:
    return Facts(status=status, message=message, **({"is_json": True} | facts))  # type: ignore[arg-type]


CASES: list[tuple[str, Facts]] = [
    ("D01", Facts(failed=Failed.NOT_CONNECTED)),
    ("D02", Facts(failed=Failed.NO_PROXY)),
    ("D04", Facts(failed=Failed.STALE)),
    ("D05", Facts(failed=Failed.LOST)),
    ("D06", Facts(failed=Failed.TIMED_OUT)),
    ("D07", refused(400, "max_tokens: field required", error="invalid_request_error")),
    ("D08", refused(400, "invalid signature in thinking block")),
    ("D07", refused(422)),
    ("D07", refused(400, "<html>", is_json=False)),
    ("D07b", refused(400, "this credential is only authorized for use with claude code and ...")),
    ("D07b", refused(400, "third-party apps now draw from your extra usage, not your plan")),
    ("D07c", refused(400, is_json=None)),
    ("D09", refused(400, "this organization has been disabled.")),
    ("D09", refused(403, "oauth authentication is currently not allowed for this organization.")),
    ("D09", refused(401, "this organization has been disabled.")),
    ("D09", refused(403, code="organization_on_hold")),
    ("D10", refused(400, "your credit balance is too low to access the anthropic api.")),
    ("D10", refused(400, "you have reached your specified api usage limits.")),
    ("D10", refused(402, error="billing_error")),
    ("D11", refused(401, "invalid authentication credentials", error="authentication_error")),
    ("D11", refused(403, "oauth token has been revoked", error="permission_error")),
    ("D11c", refused(401, "invalid x-api-key", can_refresh=False)),
    ("D11c", refused(403, "oauth token has been revoked", can_refresh=False)),
    ("D08", refused(400, "messages.1.content.0: invalid `signature` in `thinking` block")),
    ("D11d", refused(403, "oauth token does not meet scope requirement user:inference")),
    ("D12", refused(403, "your account may not use this model", error="permission_error")),
    ("D13", refused(403, "<html>", is_json=False)),
    ("D13", refused(429, "<html>", is_json=False)),
    ("D13", refused(502, "<html>", is_json=False)),
    ("D13", refused(529, "<html>", is_json=False)),
    ("D13", refused(403, "request not allowed", error="forbidden", has_id=False)),
    ("D12", refused(403, "request not allowed", error="forbidden", has_id=True)),
    *(("D14", refused(status)) for status in (404, 405, 409, 410, 413, 415, 431)),
    ("D14/rest", refused(418)),
    ("D14/rest", refused(451, "not here")),
    ("D15", refused(408)),
    ("D15/425", refused(425)),
    ("D16", refused(429, limits=rejected("5h", retry_after=684.0))),
    ("D16", refused(429, limits=rejected("7d"))),
    ("D16", refused(429, limits=rejected("5h", "7d_oi"))),
    ("D16", refused(429, limits=Limits(status="rejected"))),
    ("D16", refused(429, limits=Limits(status="rejected", windows=(Window("5h"),)))),
    ("D16", refused(429, limits=Limits(windows=(Window("5h", "rejected"),)))),
    ("D16", refused(429, "extra usage is off", limits=rejected("5h"))),
    ("D17", refused(429, limits=rejected("7d_oi", retry_after=261858.0))),
    ("D17", refused(429, limits=rejected("7d_opus"))),
    (
        "D17",
        refused(429, limits=Limits(status="rejected", windows=(Window("7d_oi", "rejected"),))),
    ),
    ("D18", refused(429, limits=Limits(retry_after=20.0))),
    ("D18", refused(429, limits=Limits(classic_spent_until=NOW + timedelta(seconds=20)))),
    ("D18", refused(429, limits=Limits(retry_after=3600.0))),
    ("D18/long", refused(429, limits=Limits(retry_after=3601.0))),
    ("D18b", refused(429, code="enforced_spend_limit_reached")),
    ("D18b", refused(429, code="contract_spend_limit_reached")),
    ("D18b", refused(429, "you have reached your api usage limits.")),
    ("D19", refused(429, "long context requests need usage credits")),
    ("D19", refused(429, "fast mode is not available", limits=Limits(retry_after=9.0))),
    ("D19", refused(429, limits=rejected())),
    ("D20", refused(429)),
    ("D20", refused(429, is_json=None)),
    ("D20", refused(429, limits=Limits(status="allowed", windows=(Window("5h", "allowed"),)))),
    ("D21", refused(500, error="api_error")),
    ("D21", refused(502, is_json=None)),
    ("D21", refused(503)),
    ("D21", refused(504)),
    ("D22", refused(529, error="overloaded_error")),
    ("D23/D22", Facts(status=200, event="overloaded_error")),
    ("D23/D20", Facts(status=200, event="rate_limit_error")),
    ("D23/D11", Facts(status=200, event="authentication_error")),
    ("D23/D07", Facts(status=200, event="invalid_request_error")),
    ("D23/D21", Facts(status=200, event="api_error")),
    ("D23/D21", Facts(status=200, event="an error nobody knows")),
    ("D24", Facts(status=200, ended_early=True)),
    ("D25", Facts(status=200, malformed=True)),
    ("D26", refused(302)),
    ("D26", refused(304)),
    ("D26", refused(101)),
    ("D37", Facts(status=200)),
    ("D37", Facts(status=204)),
    # Limits on an answer that was served are information, not a failure.
    ("D37", Facts(status=200, limits=rejected("5h"))),
]
IDS = [f"{row}-{number}" for number, (row, _) in enumerate(CASES)]


@pytest.mark.parametrize(("row", "facts"), CASES, ids=IDS)
def test_row(row: str, facts: Facts) -> None:
    assert judge(facts).id == row


def test_every_row_is_reached_by_a_case() -> None:
    assert {judge(facts).id for _, facts in CASES} == {row.id for row in ROWS}


def test_no_two_rows_share_an_id() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)


# same, other, effect, what the client gets: the columns of the table.
VERBATIM = None
REACTIONS: dict[str, tuple[bool, bool, Effect, type[Exception] | None]] = {
    "D01": (True, False, Effect.NONE, UpstreamConnect),
    "D02": (False, True, Effect.DETOUR, UpstreamConnect),
    "D04": (True, False, Effect.NONE, UpstreamConnect),
    "D05": (False, True, Effect.NONE, UpstreamProtocol),
    "D06": (False, False, Effect.NONE, UpstreamTimeout),
    "D07": (False, False, Effect.NONE, VERBATIM),
    "D07b": (False, True, Effect.NONE, VERBATIM),
    "D07c": (False, True, Effect.NONE, UpstreamProtocol),
    "D09": (False, True, Effect.INVALID, PoolUnavailable),
    "D10": (False, True, Effect.BILLING, PoolUnavailable),
    "D11": (True, True, Effect.RENEW, PoolUnavailable),
    "D11c": (True, True, Effect.RENEW, PoolUnavailable),
    "D08": (False, False, Effect.NONE, VERBATIM),
    "D11d": (False, True, Effect.INVALID, PoolUnavailable),
    "D12": (False, True, Effect.LACKS, VERBATIM),
    "D13": (False, False, Effect.NONE, UpstreamBlocked),
    "D14": (False, False, Effect.NONE, VERBATIM),
    "D14/rest": (False, False, Effect.NONE, VERBATIM),
    "D15": (False, True, Effect.NONE, UpstreamTimeout),
    "D15/425": (False, True, Effect.NONE, VERBATIM),
    "D16": (False, True, Effect.LIMIT, PoolLimited),
    "D17": (False, True, Effect.BUCKET, PoolLimited),
    "D18": (False, True, Effect.COOL_DOWN, PoolLimited),
    "D18/long": (False, True, Effect.LIMIT, PoolLimited),
    "D18b": (False, True, Effect.SPEND_CAP, PoolLimited),
    "D19": (False, True, Effect.NONE, VERBATIM),
    "D20": (True, True, Effect.PENALTY, VERBATIM),
    "D21": (False, True, Effect.NONE, VERBATIM),
    "D22": (True, False, Effect.NONE, VERBATIM),
    "D23/D22": (True, False, Effect.NONE, VERBATIM),
    "D23/D20": (True, True, Effect.PENALTY, VERBATIM),
    "D23/D11": (True, True, Effect.RENEW, PoolUnavailable),
    "D23/D07": (False, False, Effect.NONE, VERBATIM),
    "D23/D21": (False, True, Effect.NONE, VERBATIM),
    "D24": (False, True, Effect.NONE, UpstreamProtocol),
    "D25": (False, False, Effect.NONE, UpstreamProtocol),
    "D26": (False, False, Effect.NONE, UpstreamProtocol),
    "D37": (False, False, Effect.NONE, VERBATIM),
}


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_a_row_reacts_as_the_table_says(row: Row) -> None:
    assert (row.same, row.other, row.effect, row.ends) == REACTIONS[row.id]
    assert row.proven == (row.id in ("D16", "D17"))


def test_an_account_that_is_benched_has_a_reason() -> None:
    quiet = {Effect.NONE, Effect.PENALTY}

    assert all(row.reason for row in ROWS if row.effect not in quiet)


WINDOWS = st.builds(
    Window,
    name=st.sampled_from(["5h", "7d", "7d_oi", "x"]),
    status=st.sampled_from([None, "allowed", "allowed_warning", "rejected", "?"]),
    reset_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)
FACTS = st.builds(
    Facts,
    failed=st.none() | st.sampled_from(Failed),
    status=st.integers(0, 1000),
    error=st.text(max_size=20),
    code=st.text(max_size=20),
    message=st.text(max_size=50),
    event=st.sampled_from(["", "overloaded_error", "?"]),
    is_json=st.none() | st.booleans(),
    has_id=st.booleans(),
    malformed=st.booleans(),
    ended_early=st.booleans(),
    can_refresh=st.booleans(),
    limits=st.builds(
        Limits,
        status=st.none() | st.sampled_from(["allowed", "rejected"]),
        reset_at=st.none() | st.datetimes(timezones=st.just(UTC)),
        retry_after=st.none() | st.floats(1, 691_200),
        windows=st.lists(WINDOWS, max_size=4).map(tuple),
    ),
)


@settings(deadline=None)
@given(FACTS)
def test_every_answer_has_a_verdict_and_an_end(facts: Facts) -> None:
    row = judge(facts)

    assert row in ROWS
    assert limited_until(row, facts.limits, NOW).tzinfo is not None
    # What was not answered cannot be shown.
    assert facts.failed is None or row.ends is not None


def until(limits: Limits, now: datetime = NOW, **facts: object) -> datetime:
    row = judge(refused(429, limits=limits, **facts))
    return limited_until(row, limits, now)


def window(name: str, status: str | None, hours: int | None = None) -> Window:
    return Window(name, status, reset_at=None if hours is None else NOW + hours * HOUR)


@pytest.mark.parametrize(
    ("windows", "hours"),
    [
        ([window("5h", "rejected", 2), window("7d", "allowed", 90)], 2),
        ([window("5h", "rejected", 2), window("7d", "rejected", 90)], 90),
        ([window("5h", "rejected", 2), window("7d_oi", "rejected", 90)], 2),
        ([window("5h", "rejected"), window("7d", "rejected", 90)], 90),
        ([window("5h", "rejected"), window("7d", "allowed", 90)], 50),
        ([], 50),
        ([window("5h", None, 3)], 50),
        ([window("7d_oi", "rejected", 70)], 70),
        ([window("7d_oi", "rejected", 70), window("7d", "allowed", 90)], 70),
        ([window("7d_oi", "rejected")], 50),
    ],
)
def test_a_limit_ends_with_the_latest_own_reset_of_what_is_spent(
    windows: list[Window], hours: int
) -> None:
    limits = Limits("rejected", NOW + 50 * HOUR, retry_after=60.0, windows=tuple(windows))

    assert until(limits) == NOW + hours * HOUR


def test_a_limit_without_any_reset_ends_with_retry_after_or_soon() -> None:
    assert until(Limits(status="rejected", retry_after=90.0)) == NOW + timedelta(seconds=90)
    assert until(Limits(status="rejected")) == NOW + UNKNOWN_LIMIT


def test_a_brief_limit_ends_when_it_says() -> None:
    soon = NOW + timedelta(seconds=20)

    assert until(Limits(retry_after=20.0)) == soon
    assert until(Limits(classic_spent_until=soon)) == soon
    assert until(Limits(retry_after=7200.0)) == NOW + 2 * HOUR
    assert until(Limits(classic_spent_until=NOW + 2 * HOUR)) == NOW + HOUR


@pytest.mark.parametrize(
    ("now", "end"),
    [
        (NOW, datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 59, 59, 999999, UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 1, 31, 12, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_spend_cap_ends_with_the_month(now: datetime, end: datetime) -> None:
    assert until(Limits(), now, code="enforced_spend_limit_reached") == end


def test_an_account_without_credit_is_asked_again_after_an_hour() -> None:
    row = judge(refused(402))

    assert limited_until(row, Limits(reset_at=NOW + 9 * HOUR), NOW) == NOW + HOUR
