"""Builds the server-sent events of a reply, and the same reply as one JSON message."""

from __future__ import annotations

import json
import secrets
from typing import Any

from .brain import Block, Text, Thinking, ToolUse

Event = dict[str, Any]

PIECES = 5
# These are known at the end only.
AT_THE_END = ("server_tool_use", "output_tokens_details", "iterations")


def frame(event: Event) -> bytes:
    """Return one event on the wire."""
    data = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return f"event: {event['type']}\ndata: {data}\n\n".encode()


def message_events(
    blocks: list[Block], model: str, usage: dict[str, Any], pieces: int = PIECES
) -> list[Event]:
    """Return the events of a whole reply, in the order of the real API.

    `usage` is the final one; text comes in `pieces` deltas where it is long enough.
    """
    known = {name: value for name, value in usage.items() if name not in AT_THE_END}
    start = message([], model, known | {"output_tokens": 1}, stop_reason=None)
    events: list[Event] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        opening = _opening(block)
        events.append({"type": "content_block_start", "index": index, "content_block": opening})
        if index == 0:
            events.append({"type": "ping"})
        for delta in _deltas(block, pieces):
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    totals = {n: value for n, value in usage.items() if isinstance(value, int) or n in AT_THE_END}
    end = {"stop_reason": stop_reason(blocks), "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": totals})
    events.append({"type": "message_stop"})
    return events


def message(
    blocks: list[Block], model: str, usage: dict[str, Any], stop_reason: str | None
) -> dict[str, Any]:
    """Return a message object."""
    return {
        "id": "msg_01" + secrets.token_hex(11),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_whole(block) for block in blocks],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def stop_reason(blocks: list[Block]) -> str:
    """Return why the reply ended."""
    return "tool_use" if isinstance(blocks[-1], ToolUse) else "end_turn"


def split(text: str, pieces: int) -> list[str]:
    """Cut a text into `pieces` parts of nearly equal length, fewer when it is too short."""
    count = max(1, min(pieces, len(text)))
    edges = [len(text) * i // count for i in range(count + 1)]
    return [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def _whole(block: Block) -> dict[str, Any]:
    match block:
        case Thinking():
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case Text():
            return {"type": "text", "text": block.text}
        case ToolUse():
            fields = {"id": block.id, "name": block.name, "input": block.input}
            return {"type": "tool_use", **fields}


def _opening(block: Block) -> dict[str, Any]:
    match block:
        case Thinking():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case Text():
            return {"type": "text", "text": ""}
        case ToolUse():
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}


def _deltas(block: Block, pieces: int) -> list[dict[str, Any]]:
    match block:
        case Thinking():
            thoughts = [{"type": "thinking_delta", "thinking": t} for t in split(block.text, 2)]
            return [*thoughts, {"type": "signature_delta", "signature": block.signature}]
        case Text():
            return [{"type": "text_delta", "text": part} for part in split(block.text, pieces)]
        case ToolUse():
            # The first piece of a tool's input is empty in real streams.
            parts = ["", *split(json.dumps(block.input), 3)]
            return [{"type": "input_json_delta", "partial_json": part} for part in parts]
