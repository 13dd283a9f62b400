"""Files: a small one is kept; of a large one only size, hash and beginning."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .answer import Answer, json_answer
from .call import Call
from .errors import ApiError
from .multipart import KEPT
from .script import Action
from .state import World
from .things import find, owner_of, page, timestamp

FILES = "/v1/files"
# 500 MiB, and the form around it.
LARGEST = 501 * 1024 * 1024
PIECE = 64 * 1024


@dataclass(slots=True)
class File:
    """One file of an organisation."""

    id: str
    organization: str
    created_at: float
    filename: str
    mime_type: str
    size: int
    sha256: str
    start: bytes = field(repr=False)


def create(world: World, call: Call, action: Action) -> Answer:
    """Answer POST /v1/files."""
    organization = owner_of(world, call)
    if call.too_large:
        raise ApiError(413, "Request exceeds the maximum size")
    parts = call.multipart.parts if call.multipart and call.multipart.is_whole else []
    part = next((part for part in parts if part.name == "file"), None)
    if part is None:
        raise ApiError(400, "file: Field required")
    file = File(
        id=f"file_01{secrets.token_hex(11)}",
        organization=organization,
        created_at=world.clock(),
        filename=part.filename or "upload",
        mime_type=part.mime_type,
        size=part.size,
        sha256=part.hash.hexdigest(),
        start=bytes(part.start),
    )
    world.files[file.id] = file
    return json_answer(200, _show(file))


def list_all(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/files."""
    return json_answer(200, page(call, world.files, owner_of(world, call), _show))


def show(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/files/{id}."""
    return json_answer(200, _show(_named(world, call)))


def delete(world: World, call: Call, action: Action) -> Answer:
    """Answer DELETE /v1/files/{id}."""
    file = _named(world, call)
    del world.files[file.id]
    return json_answer(200, {"id": file.id, "type": "file_deleted"})


def content(world: World, call: Call, action: Action) -> Answer:
    """Answer GET /v1/files/{id}/content; what was not kept of a large file reads as its hash."""
    file = _named(world, call)
    answer = Answer(200, {"content-type": file.mime_type})
    answer.headers["content-disposition"] = f'attachment; filename="{file.filename}"'
    answer.pieces, answer.length = _bytes(file), file.size
    return answer


def to_json(file: File) -> dict[str, Any]:
    """Return a file as the control endpoint shows it."""
    return _show(file) | {"organization_uuid": file.organization, "sha256": file.sha256}


def _named(world: World, call: Call) -> File:
    file_id = call.path.removeprefix(FILES + "/").partition("/")[0]
    return find(world.files, owner_of(world, call), file_id)


def _bytes(file: File) -> Iterator[bytes]:
    for begin in range(0, len(file.start), PIECE):
        yield file.start[begin : begin + PIECE]
    block = file.sha256.encode() * (PIECE // len(file.sha256))
    for begin in range(KEPT, file.size, PIECE):
        yield block[: file.size - begin]


def _show(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "type": "file",
        "filename": file.filename,
        "mime_type": file.mime_type,
        "size_bytes": file.size,
        "created_at": timestamp(file.created_at),
        "downloadable": True,
    }
