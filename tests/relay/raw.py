"""A client that sees exactly what the relay puts on the wire."""

from __future__ import annotations

import asyncio
import contextlib
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
        return await cls.request(url, "POST", path, headers, body)

    @classmethod
    async def request(
        cls, url: str, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> RawClient:
        """Connect and send one request; the path goes out as it is."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"content-length: {len(body)}"]
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


class RawUpstream:
    """An upstream that answers each request with bytes of the test's choice, in turn.

    An answer is a list of pieces; a number is a pause in seconds, None a reset. The last one
    repeats. Without a reset, the connection is closed behind the last piece.
    """

    def __init__(self, *answers: list[bytes | float | None]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        ending = asyncio.ensure_future(self._note_end(reader))
        for piece in answer:
            if piece is None:
                writer.transport.abort()
            elif isinstance(piece, bytes):
                writer.write(piece)
            else:
                await asyncio.wait({ending}, timeout=piece)
        writer.close()
        await ending

    async def _note_end(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        self.ended.set()
