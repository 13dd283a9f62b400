"""Rate-limit windows: the headers they produce and when they refuse a request."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from .errors import MESSAGES, ApiError
from .state import Account, Allowance, ApiKey, Window

PREFIX = "anthropic-ratelimit-unified-"
PER_MINUTE = {
    "requests": (4000, 3999),
    "tokens": (480000, 479000),
    "input-tokens": (400000, 399000),
    "output-tokens": (80000, 80000),
}
LENGTHS = {"5h": 5 * 3600}
WEEK = 7 * 86400
CLAIMS = {
    "5h": "five_hour",
    "7d": "seven_day",
    "7d_oi": "seven_day_overage_included",
    "7d_opus": "seven_day_opus",
    "7d_sonnet": "seven_day_sonnet",
    "overage": "overage",
}
# The weekly window of one model family shows and counts only on calls of that family.
FAMILIES = {"7d_oi": "fable", "7d_opus": "opus", "7d_sonnet": "sonnet"}


def set_windows(account: Account, given: dict[str, Any], now: float) -> None:
    """Change the given windows of an account; null removes one."""
    for name, fields in given.items():
        if fields is None:
            account.windows.pop(name, None)
            continue
        status = fields.get("status", "allowed")
        utilization = fields.get("utilization", 1.0 if status == "rejected" else 0.0)
        reset = int(fields.get("reset", now + _length(name)))
        account.windows[name] = Window(utilization, status, reset)


def set_allowances(key: ApiKey, given: dict[str, Any], now: float) -> None:
    """Change what an API key may use in a minute; null goes back to what every key may."""
    if unknown := sorted(set(given) - set(PER_MINUTE)):
        raise ValueError(f"unknown limit: {', '.join(unknown)}")
    for name, fields in given.items():
        if fields is None:
            key.allowances.pop(name, None)
            continue
        limit, remaining = PER_MINUTE[name]
        key.allowances[name] = Allowance(
            fields.get("limit", limit),
            fields.get("remaining", remaining),
            int(fields.get("reset", now + 60)),
        )


def current_windows(account: Account, now: float) -> dict[str, Window]:
    """Return all windows as they stand now; one whose reset has passed starts afresh."""
    for name, used in (("5h", 0.05), ("7d", 0.1)):
        if name not in account.windows:
            account.windows[name] = Window(used, "allowed", int(now) + _length(name))
    for name, window in account.windows.items():
        if now >= window.reset:
            account.windows[name] = Window(0.0, "allowed", int(now) + _length(name))
    return account.windows


def check(account: Account, model: str, now: float) -> None:
    """Raise the 429 of a spent window that applies to the model, unless credits pay for it."""
    if account.overage_in_use:
        return
    windows = _for_model(current_windows(account, now), model)
    spent = _rejected(windows)
    if spent is None:
        return
    headers = unified_headers(account, model, now)
    headers["retry-after"] = str(max(1, math.ceil(windows[spent].reset - now)))
    if spent in FAMILIES:
        headers["x-should-retry"] = "true"
    raise ApiError(429, MESSAGES[429], headers=headers)


def unified_headers(account: Account, model: str, now: float) -> dict[str, str]:
    """Return the headers of a subscription's answer for the model."""
    windows = _for_model(current_windows(account, now), model)
    counted = {name: window for name, window in windows.items() if name != "overage"}
    spent = _rejected(windows)
    warned = next((n for n, w in counted.items() if w.status == "allowed_warning"), None)
    decisive = spent or warned or "5h"
    refuses = spent is not None and not account.overage_in_use
    headers = {
        "status": "rejected" if refuses else "allowed_warning" if warned else "allowed",
        "reset": str(windows[decisive].reset),
        "representative-claim": CLAIMS.get(decisive, decisive),
        "overage-status": "allowed" if account.overage_in_use else "rejected",
    }
    if not refuses:
        headers |= {"fallback": "available", "fallback-percentage": "0.5"}
    if account.overage_in_use:
        headers["overage-in-use"] = "true"
    elif "overage" not in windows:
        headers["overage-disabled-reason"] = "out_of_credits"
    for name, window in windows.items():
        headers[f"{name}-status"] = window.status
        headers[f"{name}-reset"] = str(window.reset)
        headers[f"{name}-utilization"] = str(window.utilization)
    return {PREFIX + name: value for name, value in headers.items()}


def classic_headers(key: ApiKey, now: float) -> dict[str, str]:
    """Return the headers of an API key's answer."""
    full = {name: Allowance(*counts, int(now) + 60) for name, counts in PER_MINUTE.items()}
    headers = {}
    for name, allowed in (full | key.allowances).items():
        reset = datetime.fromtimestamp(allowed.reset, UTC)
        prefix = f"anthropic-ratelimit-{name}-"
        headers[prefix + "limit"] = str(allowed.limit)
        headers[prefix + "remaining"] = str(allowed.remaining)
        headers[prefix + "reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def _for_model(windows: dict[str, Window], model: str) -> dict[str, Window]:
    return {n: w for n, w in windows.items() if FAMILIES.get(n, "") in model}


def _rejected(windows: dict[str, Window]) -> str | None:
    spent = [n for n, w in windows.items() if w.status == "rejected" and n != "overage"]
    return max(spent, key=lambda name: windows[name].reset, default=None)


def _length(name: str) -> int:
    return LENGTHS.get(name, WEEK)
