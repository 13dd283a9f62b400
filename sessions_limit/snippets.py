"""Settings to copy into a client, for each place where they can stand; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

PLACEHOLDER = "YOUR_KEY"


@dataclass(frozen=True, slots=True)
class Snippet:
    """Settings to copy."""

    id: str
    title: str
    text: str


def snippets(base: str, key: str, *, is_passthrough: bool = False) -> list[Snippet]:
    """Return what points Claude Code at the relay at `base`, for each place it can be set.

    The names are Claude Code's own (protocol.md, section 7). With a pass-through key it keeps its
    own login, which a token of ours would displace.
    """
    values = {"ANTHROPIC_BASE_URL": base}
    if is_passthrough:
        values["ANTHROPIC_CUSTOM_HEADERS"] = f"x-relay-key: {key}"
    else:
        values["ANTHROPIC_AUTH_TOKEN"] = key
    bash = "\n".join(f"export {name}='{value}'" for name, value in values.items())
    powershell = "\n".join(f"$env:{name} = '{value}'" for name, value in values.items())
    return [
        Snippet("bash", "bash, zsh", f"{bash}\nclaude"),
        Snippet("powershell", "PowerShell", f"{powershell}\nclaude"),
        Snippet("settings", "~/.claude/settings.json", json.dumps({"env": values}, indent=2)),
        _own_check(base, key) if is_passthrough else _check(base, key),
    ]


def _check(base: str, key: str) -> Snippet:
    return Snippet(
        "curl",
        "Check with curl: lists the models, costs no tokens",
        f"curl -sS '{base}/v1/models' \\\n"
        f"  -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01'",
    )


def _own_check(base: str, key: str) -> Snippet:
    return Snippet(
        "curl",
        "Check with curl: shows the key’s own limits",
        f"curl -sS '{base}/api/me' \\\n  -H 'x-relay-key: {key}'",
    )
