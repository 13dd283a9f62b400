"""Child processes that are started, watched, restarted with back-off and stopped in order."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

PR_SET_PDEATHSIG = 1
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
# A child that never lived this long and failed this often will not get better by itself.
SETTLED_AFTER, HOPELESS_AFTER = 10.0, 5
FORGIVEN_AFTER = 30.0
# After a second signal: this long for all, and this long at least for each step.
HURRY, LEAST = 0.8, 0.1
LAST_LINES = 20


class ChildFailed(Exception):
    """A child cannot be started; the text holds its last lines."""


@dataclass(eq=False)
class Child:
    """One process to keep alive. The lines of a quiet one are shown only when it has died."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    fds: tuple[int, ...] = ()
    quiet: bool = False
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True
    settled: bool = False
    fails: int = 0
    born: float = 0.0
    start_at: float = 0.0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    partial: bytes = b""

    @property
    def running(self) -> bool:
        """True while the process has not been seen to end."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Keeps children alive until a signal comes.

    `say` tells the operator one line, and `show` one that a child has said.
    """

    def __init__(self, say: Callable[[str], None], show: Callable[[str], None]) -> None:
        self._say, self._show = say, show
        self._children: list[Child] = []
        self._outputs = selectors.DefaultSelector()
        self._signals: list[float] = []
        self._hurried = False

    def take_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP mean: stop. A second one means: at once."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(time.monotonic())

    @property
    def stopping(self) -> bool:
        """True from the first signal."""
        return bool(self._signals)

    def start(self, child: Child) -> None:
        """Start a child and keep it alive from now on. Call it from the main thread."""
        self._children.append(child)
        self._spawn(child)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Mind the children until a signal or `until`; raise ChildFailed for a hopeless one."""
        while not self.stopping and not until():
            self._tick(0.1)
            for child in self._children:
                if not child.settled and child.fails >= HOPELESS_AFTER:
                    lines = "\n".join(f"  {line}" for line in child.lines)
                    raise ChildFailed(f"{child.name} does not start; its last lines:\n{lines}")

    def stop(self, name: str, seconds: float) -> None:
        """Stop the children of this name: SIGTERM, and SIGKILL after `seconds`.

        A second signal is passed on and leaves them hardly any time.
        """
        group = [child for child in self._children if child.name.partition(" ")[0] == name]
        self._tell(group)
        end = time.monotonic() + seconds
        while any(child.running for child in group):
            self._tick(0.05)
            now = time.monotonic()
            if len(self._signals) > 1:
                self._hurry(group)
                end = min(end, max(self._signals[1] + HURRY, now + LEAST))
            if now >= end:
                for child in group:
                    _signal(child, signal.SIGKILL)
        self._tick(0)

    def _tell(self, group: list[Child]) -> None:
        for child in group:
            if child.wanted:
                child.wanted = False
                _signal(child, signal.SIGTERM)

    def _hurry(self, group: list[Child]) -> None:
        """Pass the second signal on, once, and tell all others but Valkey, which they still use."""
        if self._hurried:
            return
        self._hurried = True
        for child in group:
            _signal(child, signal.SIGTERM)
        self._tell([child for child in self._children if child.name != "valkey"])

    def _tick(self, seconds: float) -> None:
        for key, _ in self._outputs.select(seconds):
            self._pass_on(key.data)
        for child in self._children:
            if child.process is not None and not child.running:
                self._bury(child)
            if child.process is None and child.wanted and time.monotonic() >= child.start_at:
                self._spawn(child)

    def _spawn(self, child: Child) -> None:
        # A session of its own: Ctrl-C in the terminal must reach only us, or Valkey ends first.
        child.process = subprocess.Popen(
            child.argv,
            env=child.env,
            pass_fds=child.fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dying_with_parent(),
        )
        child.born = time.monotonic()
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._outputs.register(child.process.stdout, selectors.EVENT_READ, child)

    def _bury(self, child: Child) -> None:
        assert child.process is not None
        assert child.process.stdout is not None
        self._pass_on(child)
        with contextlib.suppress(KeyError):
            self._outputs.unregister(child.process.stdout)
        child.process.stdout.close()
        dead, child.process = child.process, None
        if not child.wanted:
            return
        now = time.monotonic()
        lived = now - child.born
        child.settled = child.settled or lived >= SETTLED_AFTER
        child.fails = 1 if lived >= FORGIVEN_AFTER else child.fails + 1
        child.start_at = now + min(FIRST_WAIT * 2 ** (child.fails - 1), LONGEST_WAIT)
        if child.quiet:
            for line in child.lines:
                self._say(f"{child.name}: {line}")
        how = f"signal {-dead.returncode}" if dead.returncode < 0 else f"code {dead.returncode}"
        self._say(f"{child.name} (pid {dead.pid}) ended with {how}; starting it again")

    def _pass_on(self, child: Child) -> None:
        assert child.process is not None
        assert child.process.stdout is not None
        while True:
            try:
                piece = os.read(child.process.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            if not piece:
                with contextlib.suppress(KeyError):
                    self._outputs.unregister(child.process.stdout)
                return
            *whole, child.partial = (child.partial + piece).split(b"\n")
            for line in whole:
                text = line.decode(errors="replace")
                child.lines.append(text)
                if not child.quiet:
                    self._show(text)


def dying_with_parent() -> Callable[[], None] | None:
    """Return a preexec_fn that ends the child by SIGTERM when its parent dies; None off Linux."""
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing may be imported.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(0)

    return arrange


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process is not None and child.running:
        child.process.send_signal(number)
