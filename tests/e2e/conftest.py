"""The real Claude Code, pointed at a real relay over three linked accounts."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tap import Tap
from tests.support.product import Product
from tests.support.serving import ROOT
from tests.support.simulator import Simulator

CLAUDE = ROOT / ".e2e" / "node_modules" / ".bin" / "claude"
EMAILS = ("ada@example.com", "grace@example.com", "linus@example.com")
PATIENCE = 120


@dataclass
class Said:
    """What one run of Claude Code answered."""

    result: str
    is_error: bool
    session: str
    exit_code: int


@dataclass
class Claude:
    """Runs Claude Code headless against the relay, each session with a home of its own."""

    product: Product
    tap: Tap
    key: str
    home: Path
    key_name: str = ""

    def environment(self) -> dict[str, str]:
        """Return all that Claude Code knows of the world."""
        config = self.home / ".claude"
        config.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(config),
            "ANTHROPIC_BASE_URL": self.tap.url,
            "ANTHROPIC_AUTH_TOKEN": self.key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
        }

    def ask(self, prompt: str, *arguments: str) -> Said:
        """Run one prompt and return what it said."""
        done = subprocess.run(
            [CLAUDE, "-p", prompt, "--output-format", "json", *arguments],
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        result = str(answer.get("result", ""))
        return Said(result, answer["is_error"], answer["session_id"], done.returncode)


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[Simulator]:
    """One simulator for all runs."""
    with Simulator.start() as simulator:
        yield simulator


@pytest.fixture(scope="session")
def product(
    simulator_process: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    """One relay with two web processes for all runs."""
    running = Product(tmp_path_factory.mktemp("product"), simulator_process)
    for email in EMAILS:
        running.link(email)
    yield running
    running.end()


@pytest.fixture
def claude(product: Product, tmp_path: Path) -> Iterator[Callable[[], Claude]]:
    """Make a Claude Code with a fresh home; all share one tap in front of the relay."""
    assert CLAUDE.exists(), "make e2e installs Claude Code"
    product.simulator.clear_requests()
    product.simulator.clear_scripts()
    name = f"e2e {uuid.uuid4().hex[:6]}"
    key = product.key(name)
    with Tap(product.port) as tap:
        yield lambda: Claude(product, tap, key, tmp_path / uuid.uuid4().hex, name)
