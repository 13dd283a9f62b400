"""A client that sees exactly what the relay puts on the wire."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Seen:
    """An answer as it came: head, chunks decoded, and whether it ended as HTTP says it must."""

    head: str
    body: bytes
    ended_well: bool


class RawClient:
    """One connection; sends a request and reads the answer byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def post(cls, url: str, path: str, headers: dict[str, str], body: bytes) -> RawClient:
        """Connect and send one POST."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [f"POST {path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        return cls(reader, writer)

    async def head(self) -> str:
        """Read the answer's head."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def chunk(self) -> bytes:
        """Read one chunk; empty for the final one. Raises IncompleteReadError on a cut."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def all(self) -> Seen:
        """Read to the end, however it comes."""
        head, body = await self.head(), b""
        try:
            while piece := await self.chunk():
                body += piece
        except (asyncio.IncompleteReadError, ConnectionResetError, ValueError):
            return Seen(head, body, ended_well=False)
        return Seen(head, body, ended_well=True)

    def hang_up(self) -> None:
        """Go away."""
        self.writer.transport.abort()
