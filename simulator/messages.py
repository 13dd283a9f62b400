"""The inference endpoints: messages and token counts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from . import limits
from .answer import Answer, json_answer
from .brain import Block, Text, ToolUse, think_up, wanted_usage
from .call import Call, authenticate
from .errors import ApiError
from .script import Action
from .sse import PIECES, frame, message, message_events, stop_reason
from .state import Account, ApiKey, World

INFERENCE = "user:inference"
CLAUDE_CODE_ONLY = (
    "This credential is only authorized for use with Claude Code and cannot be used for other "
    "API requests."
)


def create_message(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/messages, as a stream or in one piece."""
    payer, request = _admit(world, call)
    model = request["model"]
    if isinstance(payer, Account):
        limits.check(payer, model, world.clock())
    headers = _limit_headers(payer, model, world.clock())
    blocks = _reply(request, payer, action)
    usage = _usage(world, payer, call.body, request, blocks)
    payer.served += 1
    if not request.get("stream"):
        answer = message(blocks, model, usage, stop_reason(blocks))
        return json_answer(200, answer, headers)
    pieces = action.events if action.events is not None else PIECES
    events = message_events(blocks, model, usage, pieces)
    headers |= {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
    }
    return Answer(200, headers, events=[frame(event) for event in events])


def count_tokens(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/messages/count_tokens; no rate-limit headers, like the real one."""
    _admit(world, call)
    return json_answer(200, {"input_tokens": _estimate(call.body)})


def check_version(call: Call) -> None:
    """Raise a 400 when the anthropic-version header is missing."""
    if not call.headers.get("anthropic-version"):
        raise ApiError(400, "anthropic-version: header is required")


def check_client(payer: Account | ApiKey, call: Call) -> None:
    """Raise a 400 when the account serves Claude Code only and this is something else."""
    agent = call.headers.get("user-agent", "")
    is_strict = isinstance(payer, Account) and payer.claude_code_only
    if is_strict and not agent.startswith("claude-cli/"):
        raise ApiError(400, CLAUDE_CODE_ONLY)


def _admit(world: World, call: Call) -> tuple[Account | ApiKey, dict[str, Any]]:
    if call.too_large:
        raise ApiError(413, "Request exceeds the maximum size")
    payer = authenticate(world, call, INFERENCE)
    check_version(call)
    request = call.json()
    if not isinstance(request.get("model"), str):
        raise ApiError(400, "model: Field required")
    if not isinstance(request.get("messages"), list):
        raise ApiError(400, "messages: Field required")
    if not request["messages"]:
        raise ApiError(400, "messages: at least one message is required")
    if not request["model"].startswith("claude"):
        raise ApiError(404, f"model: {request['model']}")
    check_client(payer, call)
    return payer, request


def _limit_headers(payer: Account | ApiKey, model: str, now: float) -> dict[str, str]:
    if isinstance(payer, ApiKey):
        return limits.classic_headers(payer, now)
    return limits.unified_headers(payer, model, now)


def _reply(request: dict[str, Any], payer: Account | ApiKey, action: Action) -> list[Block]:
    if action.text is not None:
        return [Text(action.text)]
    name = payer.email if isinstance(payer, Account) else payer.name
    blocks = think_up(request, name)
    is_short = isinstance(blocks[-1], Text) and len(blocks[-1].text) < (action.events or 0)
    if is_short:
        blocks[-1] = Text(" ".join(f"word{i}" for i in range(action.events or 0)))
    return blocks


def _usage(
    world: World,
    payer: Account | ApiKey,
    body: bytes,
    request: dict[str, Any],
    blocks: list[Block],
) -> dict[str, Any]:
    """Estimate usage from sizes; four fifths of a body with breakpoints is cached prefix.

    An organisation writes a prefix to its cache once and reads it from then on. What the prompt
    itself asks to be told (`usage: {...}`) stands above all.
    """
    total = _estimate(body)
    cached = total * 4 // 5 if b'"cache_control"' in body else 0
    written = 0 if cached and _is_warm(world, payer, request) else cached
    is_hour = b'"ttl":"1h"' in body.replace(b": ", b":")
    return {
        "input_tokens": total - cached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached - written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if is_hour else written,
            "ephemeral_1h_input_tokens": written if is_hour else 0,
        },
        "output_tokens": sum(_size(block) for block in blocks),
        "service_tier": "standard",
    } | wanted_usage(request)


def _is_warm(world: World, payer: Account | ApiKey, request: dict[str, Any]) -> bool:
    prefix = [request.get("system"), request.get("tools")]
    digest = hashlib.sha256(json.dumps(prefix).encode()).hexdigest()
    place = (payer.organization_uuid, digest)
    was_there = place in world.cached_prefixes
    world.cached_prefixes.add(place)
    return was_there


def _estimate(body: bytes) -> int:
    return max(1, len(body) // 4)


def _size(block: Block) -> int:
    text = json.dumps(block.input) if isinstance(block, ToolUse) else block.text
    return max(2, len(text) // 4)
