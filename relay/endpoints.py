"""Which addresses the relay serves, and what kind of walk serves each; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from relay.errors import Method, NotFound

MIB = 1024 * 1024
THING_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}", re.ASCII)


class Kind(Enum):
    """How an address is served."""

    MESSAGE = auto()  # by any account; may be tried again
    MODELS = auto()  # from the stored catalogue
    MODEL = auto()
    CREATE = auto()  # by any account, once; what is made stays with it
    LIST = auto()  # merged over the accounts that hold something of the key
    READ = auto()  # by the account that holds the thing
    CONTENT = auto()  # the same, and what comes is no JSON
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Thing:
    """A kind of thing that an account keeps: its name in the database, path and largest body."""

    kind: str
    path: str
    largest: int


BATCH = Thing("batch", "/v1/messages/batches", 256 * MIB)
# 500 MiB, and the form around it.
FILE = Thing("file", "/v1/files", 501 * MIB)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address: `name` is its shape, as it is recorded; `id` what stood in the braces."""

    name: str
    kind: Kind
    thing: Thing | None = None
    id: str = ""


SHAPES: dict[str, dict[str, tuple[Kind, Thing | None]]] = {
    "/v1/messages": {"POST": (Kind.MESSAGE, None)},
    "/v1/messages/count_tokens": {"POST": (Kind.MESSAGE, None)},
    "/v1/models": {"GET": (Kind.MODELS, None)},
    "/v1/models/{id}": {"GET": (Kind.MODEL, None)},
    "/v1/messages/batches": {"POST": (Kind.CREATE, BATCH), "GET": (Kind.LIST, BATCH)},
    "/v1/messages/batches/{id}": {"GET": (Kind.READ, BATCH), "DELETE": (Kind.DELETE, BATCH)},
    "/v1/messages/batches/{id}/cancel": {"POST": (Kind.READ, BATCH)},
    "/v1/messages/batches/{id}/results": {"GET": (Kind.CONTENT, BATCH)},
    "/v1/files": {"POST": (Kind.CREATE, FILE), "GET": (Kind.LIST, FILE)},
    "/v1/files/{id}": {"GET": (Kind.READ, FILE), "DELETE": (Kind.DELETE, FILE)},
    "/v1/files/{id}/content": {"GET": (Kind.CONTENT, FILE)},
}
WITH_ID = ("/v1/models/", f"{BATCH.path}/", f"{FILE.path}/")


def find(method: str, path: str) -> Endpoint:
    """Return what serves a request; raise NotFound or Method."""
    shape, thing_id = _shape(path)
    methods = SHAPES.get(shape)
    if methods is None:
        raise NotFound
    if method not in methods:
        raise Method(f"{shape} takes {' and '.join(methods)} only.")
    kind, thing = methods[method]
    return Endpoint(shape, kind, thing, thing_id)


def name_of(path: str) -> str:
    """Return an address's shape, as it is recorded; "other" for one that is not served."""
    shape, _ = _shape(path)
    return shape if shape in SHAPES else "other"


def _shape(path: str) -> tuple[str, str]:
    if "{" in path:
        return "", ""
    for before in WITH_ID:
        if path.startswith(before):
            thing_id, slash, behind = path.removeprefix(before).partition("/")
            known = THING_ID.fullmatch(thing_id) is not None
            return (f"{before}{{id}}{slash}{behind}", thing_id) if known else ("", "")
    return path, ""
