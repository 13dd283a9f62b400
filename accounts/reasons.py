"""The reasons of states in words, and what heals them; pure."""

from __future__ import annotations

from enum import StrEnum

from accounts.states import CUT, STILL_LIMITED


class Step(StrEnum):
    """What an operator can do for an account."""

    NONE = ""
    WAIT = "wait"
    ENABLE = "enable"
    REFRESH = "refresh"
    RELINK = "relink"
    REPLACE = "replace"
    OWNER = "owner"


# The reasons the relay, the refresh and the jobs give, in words. Others are shown as they are.
REASONS = {
    "admin": "An operator switched it off.",
    CUT: "An operator switched it off and ended what it served.",
    "idle": "It was not used for a long time, so it was set aside.",
    "restored": "It came from a back-up and was not checked yet.",
    "refresh_rejected": "Anthropic no longer accepts this login.",
    "refresh_interrupted": "A refresh broke off after the old token may have been used up.",
    "auth_rejected": "Anthropic refused the credential twice.",
    "provider_disabled": "Anthropic has disabled this account or its organisation.",
    "expired": "Its token has ended and cannot be renewed.",
    "scope": "The credential may not be used for messages.",
    "billing": "The account is out of credit.",
    "spend_cap": "The account has reached its spend limit.",
    "limit_reached": "What its plan allows is spent.",
    "headroom": "The rest is kept for its owner.",
    "overage": "What its plan includes is spent, and more would cost extra.",
    STILL_LIMITED: "A limit that it met while it was out still holds.",
}
# In a reason, behind its name.
SPELT = {
    "5h": "the 5-hour window",
    "7d": "the 7-day window",
    "7d_oi": "the 7-day window of Fable",
    "7d_opus": "the 7-day window of Opus",
    "7d_sonnet": "the 7-day window of Sonnet",
}
HEALS = {
    Step.WAIT: "It comes back by itself; clearing it ends the wait now.",
    Step.ENABLE: "Enable it.",
    Step.REFRESH: "Refresh its token.",
    Step.RELINK: "Link it again.",
    Step.REPLACE: "Remove it and add it with a new secret.",
    Step.OWNER: "Its owner must settle this with Anthropic; then try it again.",
}
# Where more is to be said than the step.
HEALS_REASON = {
    "billing": "Top up its credit, then clear it. It is tried again after an hour.",
    "spend_cap": "Raise the cap, then clear it. It is tried once an hour.",
    "headroom": "It comes back when the window resets; lower the share kept for its owner, then "
    "clear it, to use it now.",
    "overage": "It comes back when the window resets; allow paid usage, then clear it, to use it "
    "now.",
    "scope": "Link it again and approve all that is asked for.",
    "restored": "Enable it: its secret is checked first.",
}


def in_words(reason: str) -> str:
    """Say a stored reason in a sentence: "limit_reached (5h)" names the window that is spent."""
    name, _, windows = reason.partition(" (")
    text = REASONS.get(name, reason)
    if text is reason or not windows:
        return text
    spelt = " and ".join(SPELT.get(w, w) for w in windows.removesuffix(")").split(", "))
    return f"{text.removesuffix('.')}: {spelt}."


def heals(step: Step, reason: str) -> str:
    """Say what heals an account, as exactly as its reason allows."""
    if step is Step.NONE:
        return ""
    return HEALS_REASON.get(reason.partition(" (")[0]) or HEALS[step]
