"""The model list."""

from __future__ import annotations

from typing import Any

from .answer import Answer, json_answer
from .call import Call, authenticate
from .errors import ApiError
from .messages import INFERENCE, check_version
from .script import Action
from .state import World

MODELS = {
    "claude-fable-5-2": "Claude Fable 5.2",
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5-5": "Claude Sonnet 5.5",
    "claude-haiku-5-5": "Claude Haiku 5.5",
    "claude-opus-5": "Claude Opus 5",
    "claude-sonnet-4-6": "Claude Sonnet 4.6",
    "claude-haiku-4-5-20251001": "Claude Haiku 4.5",
    "claude-sonnet-4-5-20250929": "Claude Sonnet 4.5",
}
SMALL = ("claude-haiku-4-5", "claude-sonnet-4-5")
DEFAULT_LIMIT = 20


def list_models(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/models with `limit` and `after_id`."""
    authenticate(world, call, INFERENCE)
    check_version(call)
    ids = list(MODELS)
    after = call.query.get("after_id")
    if after in ids:
        ids = ids[ids.index(after) + 1 :]
    limit = call.query.get("limit", str(DEFAULT_LIMIT))
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise ApiError(400, "limit: Input should be between 1 and 1000")
    page = ids[: int(limit)]
    answer = {
        "data": [_info(model) for model in page],
        "has_more": len(page) < len(ids),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }
    return json_answer(200, answer)


def show_model(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/models/{id}."""
    authenticate(world, call, INFERENCE)
    check_version(call)
    model = call.path.rpartition("/")[2]
    if model not in MODELS:
        raise ApiError(404, f"model: {model}")
    return json_answer(200, _info(model))


def _info(model: str) -> dict[str, Any]:
    is_small = model.startswith(SMALL)
    return {
        "type": "model",
        "id": model,
        "display_name": MODELS[model],
        "created_at": "2026-06-01T00:00:00Z",
        "lifecycle": "active",
        "line": model.split("-")[1],
        "max_input_tokens": 200000 if is_small else 1000000,
        "max_tokens": 64000 if is_small else 128000,
        "deprecated_at": None,
        "retires_at": None,
        "capabilities": None,
    }
