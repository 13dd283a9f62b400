"""Outbound proxies small enough to read: HTTP (whole addresses and CONNECT) and SOCKS5."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from urllib.parse import urlsplit


class HttpProxy:
    """Forwards requests; with a `password`, only those of `ann:<password>`."""

    scheme = "http"

    def __init__(self, password: str = "") -> None:
        self.password = password
        self.asked: list[str] = []

    async def __aenter__(self) -> HttpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, password: str = "") -> str:
        """Its address, with the password to offer."""
        user = f"ann:{password}@" if password else ""
        return f"{self.scheme}://{user}127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if place := await self._negotiate(reader, writer):
                there = await asyncio.open_connection(*place)
                there[1].write(self._first)
                await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
        writer.close()

    async def _negotiate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        self.asked.append(f"{method} {target}")
        expected = base64.b64encode(f"ann:{self.password}".encode()).decode()
        if self.password and f"basic {expected}".lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return None
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._first = b""
            host, _, port = target.partition(":")
            return host, int(port)
        parts = urlsplit(target)
        # One request a connection, so that the next one is asked for by its own address.
        path = target.removeprefix(f"{parts.scheme}://{parts.netloc}")
        head = head.replace(f" {target} ", f" {path} ", 1)
        self._first = head.replace("\r\n", "\r\nconnection: close\r\n", 1).encode("latin-1")
        return str(parts.hostname), int(parts.port or 80)


class SocksProxy(HttpProxy):
    """The part of RFC 1928 and RFC 1929 that clients use: CONNECT to a name or an IPv4 address."""

    scheme = "socks5"

    async def _negotiate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.password else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return None
        writer.write(bytes([5, wanted]))
        if wanted == 2:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user, password) == (b"ann", self.password.encode())
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return None
        *_, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        self._first = b""
        return ("127.0.0.1" if host == "localhost" else host), port


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
