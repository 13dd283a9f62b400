"""Message batches: made at once, done when first looked at, results as lines of JSON."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .answer import Answer, json_answer
from .brain import think_up
from .call import Call
from .errors import ApiError
from .script import Action
from .sse import message, stop_reason
from .state import World
from .things import find, owner_of, page, timestamp

BATCHES = "/v1/messages/batches"
LARGEST = 256 * 1024 * 1024
DAY = 86400
# A batch with a request of this custom id is never done by itself.
ENDLESS = "endless"


@dataclass(slots=True)
class Batch:
    """One batch of an organisation; `requests` as they were sent."""

    id: str
    organization: str
    created_at: float
    requests: list[dict[str, Any]]
    status: str = "in_progress"
    is_canceled: bool = False


def create(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/messages/batches."""
    organization = owner_of(world, call)
    if call.too_large:
        raise ApiError(413, "Request exceeds the maximum size")
    requests = call.json().get("requests")
    if not isinstance(requests, list) or not requests:
        raise ApiError(400, "requests: Field required")
    batch = Batch(f"msgbatch_01{secrets.token_hex(11)}", organization, world.clock(), requests)
    world.batches[batch.id] = batch
    return json_answer(200, _show(batch, call))


def list_all(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/messages/batches."""
    organization = owner_of(world, call)
    answer = page(call, world.batches, organization, lambda batch: _show(_advanced(batch), call))
    return json_answer(200, answer)


def show(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/messages/batches/{id}."""
    return json_answer(200, _show(_advanced(_named(world, call)), call))


def cancel(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/messages/batches/{id}/cancel."""
    batch = _named(world, call)
    if batch.status == "ended":
        raise ApiError(400, "Batch cannot be canceled: it has ended")
    batch.status, batch.is_canceled = "canceling", True
    return json_answer(200, _show(batch, call))


def delete(world: World, call: Call, action: Action) -> Answer:
    """Answer DELETE /v1/messages/batches/{id}."""
    batch = _named(world, call)
    if batch.status != "ended":
        raise ApiError(400, "Batch cannot be deleted: it has not ended")
    del world.batches[batch.id]
    return json_answer(200, {"id": batch.id, "type": "message_batch_deleted"})


def results(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/messages/batches/{id}/results, line by line."""
    batch = _named(world, call)
    if batch.status != "ended":
        raise ApiError(404, f"Results of {batch.id} are not available yet")
    answer = Answer(200, {"content-type": "application/x-jsonl"})
    answer.pieces = _lines(batch)
    return answer


def _named(world: World, call: Call) -> Batch:
    batch_id = call.path.removeprefix(BATCHES + "/").partition("/")[0]
    return find(world.batches, owner_of(world, call), batch_id)


def _advanced(batch: Batch) -> Batch:
    is_endless = any(request.get("custom_id") == ENDLESS for request in batch.requests)
    if batch.status == "canceling" or not is_endless:
        batch.status = "ended"
    return batch


def _lines(batch: Batch) -> Iterator[bytes]:
    for request in batch.requests:
        line = {"custom_id": request.get("custom_id"), "result": _result(batch, request)}
        yield json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _result(batch: Batch, request: dict[str, Any]) -> dict[str, Any]:
    params = request.get("params")
    if batch.is_canceled:
        return {"type": "canceled"}
    if not isinstance(params, dict) or not isinstance(params.get("messages"), list):
        error = {"type": "invalid_request_error", "message": "messages: Field required"}
        return {"type": "errored", "error": {"type": "error", "error": error}}
    blocks = think_up(params, "a batch")
    usage = {"input_tokens": 10, "output_tokens": 5}
    said = message(blocks, str(params.get("model")), usage, stop_reason(blocks))
    return {"type": "succeeded", "message": said}


def _show(batch: Batch, call: Call) -> dict[str, Any]:
    ended, count = batch.status == "ended", len(batch.requests)
    counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
    outcome = "canceled" if batch.is_canceled else "succeeded"
    counts[outcome if ended else "processing"] = count
    host = call.headers["host"]
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.status,
        "request_counts": counts,
        "created_at": timestamp(batch.created_at),
        "expires_at": timestamp(batch.created_at + DAY),
        "ended_at": timestamp(batch.created_at) if ended else None,
        "archived_at": None,
        "cancel_initiated_at": timestamp(batch.created_at) if batch.is_canceled else None,
        "results_url": f"http://{host}{BATCHES}/{batch.id}/results" if ended else None,
    }
