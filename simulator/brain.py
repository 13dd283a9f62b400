"""Decides the reply from the request: a few words, a tool call, or what the prompt asks for."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Thinking:
    """A thinking block."""

    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text block."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call."""

    id: str
    name: str
    input: dict[str, Any]


Block = Thinking | Text | ToolUse


def think_up(request: dict[str, Any], served_by: str) -> list[Block]:
    """Return the blocks of the reply; `served_by` is told only to a prompt with `whoami`."""
    content = _last_user_content(request)
    prompt = "\n".join(_texts(content))
    blocks: list[Block] = []
    if _thinks(request) and _line(prompt, "think") is not None:
        blocks.append(Thinking("The user said: think.", secrets.token_urlsafe(48)))
    blocks.append(_answer(request, content, prompt, served_by))
    return blocks


def wanted_usage(request: dict[str, Any]) -> dict[str, Any]:
    """Return the usage that a line `usage: {...}` of the prompt asks to be told; {} without one."""
    told = _line("\n".join(_texts(_last_user_content(request))), "usage: ")
    try:
        usage = json.loads(told or "{}")
    except ValueError:
        return {}
    return usage if isinstance(usage, dict) else {}


def _answer(
    request: dict[str, Any], content: list[dict[str, Any]], prompt: str, served_by: str
) -> Block:
    results = [block for block in content if block.get("type") == "tool_result"]
    if results:
        said = "\n".join(text for r in results for text in _texts(_blocks(r.get("content"))))
        return Text(f"The tool said: {said}")
    command = _line(prompt, "bash: ")
    if command and _has_tool(request, "Bash"):
        given = {"command": command, "description": "Run the command of the prompt"}
        return ToolUse("toolu_01" + secrets.token_hex(11), "Bash", given)
    exact = _line(prompt, "reply: ")
    if exact is not None:
        return Text(exact)
    count = len(request["messages"])
    hello = f"Hello from the simulator. You sent {count} messages."
    return Text(f"{hello} Served by {served_by}." if "whoami" in prompt else hello)


def _last_user_content(request: dict[str, Any]) -> list[dict[str, Any]]:
    for message in reversed(request["messages"]):
        if isinstance(message, dict) and message.get("role") == "user":
            return _blocks(message.get("content"))
    return []


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]


def _texts(blocks: list[dict[str, Any]]) -> list[str]:
    return [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]


def _line(prompt: str, start: str) -> str | None:
    """Return what follows `start` on the last line that begins with it."""
    found = re.findall(rf"^{re.escape(start)}(.*)$", prompt, flags=re.MULTILINE)
    return found[-1].strip() if found else None


def _thinks(request: dict[str, Any]) -> bool:
    thinking = request.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def _has_tool(request: dict[str, Any], name: str) -> bool:
    tools = request.get("tools")
    if not isinstance(tools, list):
        return False
    return any(isinstance(tool, dict) and tool.get("name") == name for tool in tools)
