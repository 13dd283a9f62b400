"""Runs the simulator: `python -m simulator --port 0 --accounts 3`."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys

from aiohttp import web

from .app import Simulator

PR_SET_PDEATHSIG = 1
BACKLOG = 1024
SHUTDOWN_SECONDS = 0.1


def main() -> None:
    """Parse the command line and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="simulator", description="A stand-in for Anthropic.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes any free port")
    parser.add_argument("--accounts", type=int, default=0, metavar="N", help="people at start")
    parser.add_argument("--die-with-parent", action="store_true", help="Linux only")
    options = parser.parse_args()
    if options.die_with_parent:
        _die_with_parent()
    asyncio.run(_serve(options.host, options.port, options.accounts))


async def _serve(host: str, port: int, people: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Cancelling the handler is how a client that goes away is noticed at once; leaving bodies
    # compressed is how they are recorded byte for byte.
    runner = web.AppRunner(
        Simulator(people).build(),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    bound = runner.addresses[0][1]
    print(json.dumps({"url": f"http://{host}:{bound}"}), flush=True)
    await stop.wait()
    await runner.cleanup()


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


if __name__ == "__main__":
    main()
