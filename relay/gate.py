"""The ASGI half of the door: what a request must look like before anything of it is believed.

The other half is proxy_project/door.py, which sees what an ASGI application cannot. This one
repeats what a server other than ours would let through.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from relay.errors import BadRequest, HeadersTooLarge

Headers = Sequence[tuple[bytes, bytes]]
PREFIX = "/v1/"
CLEAN = re.compile(r"(/[A-Za-z0-9._~:@!$&'()*+,=-]+)+/?", re.ASCII)
DOTS = re.compile(r"/\.\.?(/|$)")
MOST_FIELDS, LARGEST_HEAD = 100, 32 * 1024
ONLY_ONCE = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"x-relay-key",
        b"content-length",
        b"content-type",
        b"host",
        b"x-claude-code-session-id",
    }
)


def is_relay_path(raw_path: str) -> bool:
    """Tell whether a target is the relay's; raise BadRequest for one that is so in disguise.

    Proxies and frameworks decode, join and cut paths each in their own way. A path that only
    becomes one of ours by such means is refused, so that no two of them can read it differently.
    """
    if CLEAN.fullmatch(raw_path) and not DOTS.search(raw_path):
        return raw_path.startswith(PREFIX)
    plain = unquote(unquote(raw_path)).replace("\\", "/").partition(";")[0].casefold()
    plain = posixpath.normpath(re.sub("/+", "/", plain + "/")) + "/"
    if plain.startswith(PREFIX) or raw_path.casefold().startswith(PREFIX):
        raise BadRequest("The path is not in its plain form.", code="bad_path")
    return False


def check(headers: Headers) -> None:
    """Refuse a head that is too large, ambiguous, or meant for another host."""
    if len(headers) > MOST_FIELDS or sum(len(n) + len(v) for n, v in headers) > LARGEST_HEAD:
        raise HeadersTooLarge
    seen: set[bytes] = set()
    for name, value in headers:
        if name in seen and name in ONLY_ONCE:
            raise BadRequest(f"The header {name.decode('latin-1')} is there twice.")
        seen.add(name)
        if b"_" in name:
            # Some servers read it as the same name with a hyphen.
            raise BadRequest("A header's name has an underscore.")
        if name == b"upgrade":
            raise BadRequest("This address does not upgrade.")
        if name == b"host" and not _is_ours(value):
            raise BadRequest("This relay does not answer to that host name.")
    if b"host" not in seen:
        raise BadRequest("The request names no host.")


def _is_ours(host: bytes) -> bool:
    domain, _ = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
