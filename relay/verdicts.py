"""What an upstream's answer means: the decision table, as data; pure.

A row is a name, a condition on the facts of an answer, and the reaction. The first row that holds
decides. docs/relay.md explains the table to an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from relay.errors import (
    PoolLimited,
    PoolUnavailable,
    RelayError,
    UpstreamBlocked,
    UpstreamConnect,
    UpstreamProtocol,
    UpstreamTimeout,
)
from relay.facts import Facts, Failed
from relay.signs import (
    DISABLED,
    FEATURE,
    NO_CREDIT,
    NOT_CLAUDE_CODE,
    SPEND_CAPS,
    every,
    failed,
    is_edge,
    is_long,
    is_model_spent,
    is_overage_only,
    is_spent,
    is_timed,
    says,
    status,
)


class Effect(Enum):
    """What an answer does to the account that gave it."""

    NONE = auto()
    LIMIT = auto()  # rate_limited until the limit's own reset
    BILLING = auto()  # rate_limited for an hour
    SPEND_CAP = auto()  # rate_limited until the month ends
    COOL_DOWN = auto()  # not chosen for a moment; the state stays
    DETOUR = auto()  # not chosen for a moment that grows: its proxy fails
    BUCKET = auto()  # not chosen for this family of models
    PENALTY = auto()  # chosen last
    LACKS = auto()  # chosen last for this family of models
    RENEW = auto()  # its token is renewed, or it is invalid if that cannot help
    INVALID = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    `same` and `other`: may the same account, or another one, be tried after it. `proven`: the
    answer shows by its own headers that the account is spent, so moving on does not count. `wait`:
    bounds of the random wait, in seconds, before the next attempt. `ends`: what the client gets if
    the request ends here; None is the upstream's answer as it is. `charged`: a retry after it is
    paid from the budget. `blames`: whose breaker counts it, "A" the account's, "H" the upstream's.
    """

    id: str
    when: Callable[[Facts], bool]
    same: bool = False
    other: bool = False
    proven: bool = False
    effect: Effect = Effect.NONE
    reason: str = ""
    wait: tuple[float, float] = (0.0, 0.0)
    ends: type[RelayError] | None = None
    charged: bool = False
    blames: str = ""

    @property
    def delivers(self) -> bool:
        """Tell whether the upstream's answer simply goes to the client."""
        return not self.same and not self.other and self.ends is None


def judge(facts: Facts, *, alone: bool = False) -> Row:
    """Return the row that decides.

    `alone` tells that no other account has this upstream: then what it is blamed for is blamed on
    the account, and where only the upstream was in the way another account is worth a try that
    costs nothing.
    """
    row = next(row for row in ROWS if row.when(facts))
    if not alone or "H" not in row.blames:
        return row
    if row.id not in IN_THE_WAY:
        return replace(row, blames="A")
    return replace(row, blames="A", other=True, charged=False)


IN_THE_WAY = frozenset({"D01", "D13", "D22", "D23/D22"})
OVERLOADED_WAIT, BRIEF_WAIT, JITTER = (0.5, 2.0), (1.0, 1.0), (0.0, 0.5)
CLIENT_FAULTS = (404, 405, 409, 410, 413, 415, 431)

ROWS: tuple[Row, ...] = (
    # No answer.
    Row(
        "D01",
        failed(Failed.NOT_CONNECTED),
        same=True,
        wait=(0.0, 0.25),
        ends=UpstreamConnect,
        charged=True,
        blames="H",
    ),
    Row(
        "D02",
        failed(Failed.NO_PROXY),
        other=True,
        effect=Effect.DETOUR,
        reason="proxy_failed",
        ends=UpstreamConnect,
        blames="A",
    ),
    Row("D04", failed(Failed.STALE), same=True, ends=UpstreamConnect),
    Row("D05", failed(Failed.LOST), other=True, ends=UpstreamProtocol, charged=True, blames="AH"),
    Row("D06", failed(Failed.TIMED_OUT), ends=UpstreamTimeout, blames="AH"),
    # A stream that begins with an error event.
    Row(
        "D23/D22",
        lambda f: f.event == "overloaded_error",
        same=True,
        wait=OVERLOADED_WAIT,
        charged=True,
        blames="H",
    ),
    Row(
        "D23/D20",
        lambda f: f.event == "rate_limit_error",
        same=True,
        other=True,
        effect=Effect.PENALTY,
        wait=OVERLOADED_WAIT,
    ),
    Row(
        "D23/D11",
        lambda f: f.event == "authentication_error",
        same=True,
        other=True,
        effect=Effect.RENEW,
        reason="auth_rejected",
        ends=PoolUnavailable,
    ),
    Row("D23/D07", lambda f: f.event == "invalid_request_error"),
    Row("D23/D21", lambda f: f.event != "", other=True, wait=JITTER, charged=True, blames="AH"),
    # 2xx and 3xx.
    Row(
        "D24",
        every(status(200), lambda f: f.ended_early),
        other=True,
        ends=UpstreamProtocol,
        charged=True,
        blames="A",
    ),
    Row("D25", every(status(200), lambda f: f.malformed), ends=UpstreamProtocol, blames="H"),
    Row("D37", lambda f: 200 <= f.status < 300),
    Row("D26", lambda f: 100 <= f.status < 400, ends=UpstreamProtocol),
    # The edge, whatever the account.
    Row(
        "D13",
        every(lambda f: f.status in (403, 429) or f.status >= 500, is_edge),
        ends=UpstreamBlocked,
        blames="H",
    ),
    # The account itself is refused.
    Row(
        "D09",
        every(status(400, 401, 403), lambda f: DISABLED(f) or f.code == "organization_on_hold"),
        other=True,
        effect=Effect.INVALID,
        reason="provider_disabled",
        ends=PoolUnavailable,
    ),
    Row(
        "D10",
        every(status(400, 402), lambda f: NO_CREDIT(f) or f.status == 402),
        other=True,
        effect=Effect.BILLING,
        reason="billing",
        ends=PoolUnavailable,
    ),
    Row("D07b", every(status(400), NOT_CLAUDE_CODE), other=True),
    Row(
        "D07c",
        every(status(400), lambda f: f.is_json is None),
        other=True,
        ends=UpstreamProtocol,
        blames="A",
    ),
    # The conversation has left the organisation that signed its thinking; the client mends that.
    Row("D08", every(status(400), says("signature"), says("thinking"))),
    Row("D07", status(400, 422)),
    # The credential is refused.
    Row(
        "D11",
        every(
            lambda f: f.status == 401 or (f.status == 403 and "has been revoked" in f.message),
            lambda f: f.can_refresh,
        ),
        same=True,
        other=True,
        effect=Effect.RENEW,
        reason="auth_rejected",
        ends=PoolUnavailable,
    ),
    Row(
        "D11c",
        lambda f: f.status == 401 or (f.status == 403 and "has been revoked" in f.message),
        same=True,
        other=True,
        effect=Effect.RENEW,
        reason="auth_rejected",
        wait=BRIEF_WAIT,
        ends=PoolUnavailable,
    ),
    Row(
        "D11d",
        every(status(403), says("does not meet scope requirement")),
        other=True,
        effect=Effect.INVALID,
        reason="scope",
        ends=PoolUnavailable,
    ),
    Row("D12", status(403), other=True, effect=Effect.LACKS, reason="not_permitted"),
    Row("D14", status(*CLIENT_FAULTS)),
    Row("D15", status(408), other=True, ends=UpstreamTimeout, charged=True),
    Row("D15/425", status(425), other=True, charged=True),
    # 429: what is spent, and for whom.
    Row(
        "D16",
        every(status(429), is_spent),
        other=True,
        proven=True,
        effect=Effect.LIMIT,
        reason="limit_reached",
        ends=PoolLimited,
    ),
    Row(
        "D17",
        every(status(429), is_model_spent),
        other=True,
        proven=True,
        effect=Effect.BUCKET,
        reason="model_limit_reached",
        ends=PoolLimited,
    ),
    Row(
        "D18b",
        every(status(429), lambda f: f.code in SPEND_CAPS or "api usage limits" in f.message),
        other=True,
        effect=Effect.SPEND_CAP,
        reason="spend_cap",
        ends=PoolLimited,
    ),
    Row("D19", every(status(429), lambda f: FEATURE(f) or is_overage_only(f)), other=True),
    Row(
        "D18/long",
        every(status(429), is_long),
        other=True,
        effect=Effect.LIMIT,
        reason="limit_reached",
        ends=PoolLimited,
    ),
    Row(
        "D18",
        every(status(429), is_timed),
        other=True,
        effect=Effect.COOL_DOWN,
        reason="retry_after",
        ends=PoolLimited,
    ),
    Row(
        "D20",
        status(429),
        same=True,
        other=True,
        effect=Effect.PENALTY,
        wait=OVERLOADED_WAIT,
    ),
    # The upstream is unwell.
    Row("D22", status(529), same=True, wait=OVERLOADED_WAIT, charged=True, blames="H"),
    Row("D21", lambda f: f.status >= 500, other=True, wait=JITTER, charged=True, blames="AH"),
    # Any other refusal is the client's own.
    Row("D14/rest", lambda f: True),
)
