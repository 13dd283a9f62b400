"""What a login may read about itself: profile and usage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from . import limits
from .answer import Answer, json_answer
from .call import Call, authenticate
from .edge import check_edge
from .errors import ApiError
from .script import Action
from .state import Account, Window, World

SCOPE = "user:profile"
CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
SEVERITIES = {"rejected": "critical", "allowed_warning": "warning"}
KINDS = {"5h": ("session", "session"), "7d": ("weekly_all", "weekly")}
FAMILIES = {"7d_oi": "Fable", "7d_opus": "Opus", "7d_sonnet": "Sonnet"}


def show_profile(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /api/oauth/profile; the real one asks for no beta header."""
    account = _login(world, call, beta=False)
    name = account.email.partition("@")[0].title()
    plan = account.organization_type
    person = {
        "uuid": account.account_uuid,
        "full_name": f"{name} Example",
        "display_name": name,
        "email": account.email,
        "has_claude_max": plan == "claude_max",
        "has_claude_pro": plan == "claude_pro",
        "created_at": "2025-01-02T03:04:05.000000Z",
    }
    organization: dict[str, Any] = {
        "uuid": account.organization_uuid,
        "name": account.organization_name,
        "organization_type": plan,
        "billing_type": "stripe_subscription",
        "rate_limit_tier": account.rate_limit_tier,
        "seat_tier": "team_standard" if plan == "claude_team" else None,
        "has_extra_usage_enabled": False,
        "subscription_status": account.subscription_status,
        "subscription_created_at": "2025-01-02T03:04:05Z",
        "cc_onboarding_flags": {},
        "claude_code_trial_ends_at": None,
    }
    application = {"uuid": CLIENT_ID, "name": "Claude Code", "slug": "claude-code"}
    answer = {"account": person, "organization": organization, "application": application}
    return json_answer(200, answer)


def show_usage(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /api/oauth/usage; numbers are 0-100 here, unlike in the headers."""
    account = _login(world, call, beta=True)
    windows = limits.current_windows(account, world.clock())
    answer: dict[str, Any] = {
        "five_hour": _window(windows["5h"]),
        "seven_day": _window(windows["7d"]),
        "seven_day_oauth_apps": None,
        "seven_day_opus": None,
        "seven_day_sonnet": None,
        "seven_day_cowork": None,
        "extra_usage": {
            "is_enabled": False,
            "monthly_limit": None,
            "used_credits": None,
            "utilization": None,
        },
        "limits": [_limit(name, windows[name]) for name in windows if name != "overage"],
        "member_dashboard_available": False,
    }
    return json_answer(200, answer)


def _login(world: World, call: Call, *, beta: bool) -> Account:
    check_edge(call)
    payer = authenticate(world, call, SCOPE, beta=beta)
    if not isinstance(payer, Account):
        raise ApiError(401, "Invalid bearer token")
    return payer


def _window(window: Window) -> dict[str, Any]:
    return {"utilization": _percent(window), "resets_at": _time(window.reset)}


def _limit(name: str, window: Window) -> dict[str, Any]:
    kind, group = KINDS.get(name, ("weekly_scoped", "weekly"))
    model = {"id": None, "display_name": FAMILIES.get(name, name)}
    return {
        "kind": kind,
        "group": group,
        "percent": int(_percent(window)),
        "severity": SEVERITIES.get(window.status, "normal"),
        "resets_at": _time(window.reset),
        "scope": None if name in KINDS else {"model": model, "surface": None},
        "is_active": True,
    }


def _percent(window: Window) -> float:
    return round(window.utilization * 100, 2)


def _time(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000+00:00")
