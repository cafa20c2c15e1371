"""`watchbill demo` as a user starts and ends it: one command, real processes, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulator.model.mixture import UNKNOWN
from tests.conftest import temporary_folder
from watchbill.kinds.definition.loader import load_definitions

READY_SECONDS = 240.0
GONE_SECONDS = 60.0


@dataclass
class Demo:
    process: subprocess.Popen[bytes]
    credentials: Path
    output: Path
    folder: Path

    def login(self) -> dict[str, str]:
        document: dict[str, str] = json.loads(self.credentials.read_text())
        return document

    def get(self, path: str) -> Any:
        login = self.login()
        body = {
            "grantType": "client_credentials",
            "clientId": login["clientId"],
            "clientSecret": login["clientSecret"],
        }
        token = call(f"{login['url']}/api/v1/token", body=body)["accessToken"]
        return call(login["url"] + path, token=token)

    def workload_ids(self) -> set[str]:
        listed = self.get("/api/v1/workloads?limit=500")
        return {workload["id"] for workload in listed["workloads"]}

    def family(self) -> list[int]:
        """The demo's process and everything below it."""
        return descendants(self.process.pid)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def call(url: str, *, body: Any = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    pids, fresh = [pid], [pid]
    while fresh:
        fresh = [child for parent in fresh for child in children.get(parent, [])]
        pids += fresh
    return pids


def alive(pids: list[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    collected = []
    for pid in pids:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
        if state and not state.startswith("Z"):
            collected.append(pid)
    return collected


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def demo(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Demo]:
    """A demo that has said that it is ready. Its temporary data lies in `folder`, too."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o755)
    credentials, output = folder / "credentials.json", folder / "output"
    credentials.unlink(missing_ok=True)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-m", "watchbill", "demo", "--port", "0"),
                *("--credentials", str(credentials)),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,
        )
    result = Demo(process, credentials, output, folder)
    try:
        wait_for(
            lambda: credentials.exists() or process.poll() is not None,
            READY_SECONDS,
            "the demo did not become ready",
        )
        if process.poll() is not None:
            pytest.fail(f"the demo ended with {process.returncode}:\n{output.read_text()}")
        yield result
    finally:
        family = result.family()
        if process.poll() is None:
            process.kill()
            process.wait()
        wait_for(lambda: not alive(family), GONE_SECONDS, "processes were left")


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as result:
        result.chmod(0o755)
        yield result


def test_it_fills_tells_how_to_log_in_and_leaves_nothing(folder: Path) -> None:
    with demo(folder, "--workloads", "115", "--clusters", "2", "--seed", "3") as running:
        assert running.credentials.stat().st_mode & 0o777 == 0o600
        assert set(running.login()) == {"url", "clientId", "clientSecret"}
        assert 105 <= len(running.workload_ids()) <= 125
        check_kinds(running)
        clusters = running.get("/api/v1/clusters")
        assert {cluster["state"] for cluster in clusters} == {"connected"}
        assert all(cluster["workloads"] >= 25 for cluster in clusters)
        output = running.output.read_text()
        check_curl(output)
        assert "Ready after" in output
        family = running.family()
        assert len(family) >= 3
        assert running.end(signal.SIGINT) == 0
        assert not alive(family)
    assert list((folder / "tmp").glob("watchbill-demo-*")) == []


def check_kinds(running: Demo) -> None:
    """Both clusters together play every kind that has a definition, and one that has none; where the only one
    of a kind has just gone, another comes next."""
    defined = {kind.kind for kind in load_definitions().watched() if kind.is_whole} | {UNKNOWN}

    def are_shown() -> bool:
        workloads = running.get("/api/v1/workloads?limit=200")["workloads"]
        return {workload["type"] for workload in workloads} == defined

    wait_for(are_shown, READY_SECONDS, "a kind is missing")


def check_curl(output: str) -> None:
    """The printed line works as it stands."""
    (line,) = [line for line in output.splitlines() if line.strip().startswith("curl")]
    answer = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert len(json.loads(answer.stdout)["workloads"]) == 3


def test_killed_it_takes_everything_along_and_the_next_start_clears_up(folder: Path) -> None:
    with demo(folder, "--workloads", "26") as running:
        family = running.family()
        running.end(signal.SIGKILL)
        wait_for(lambda: not alive(family), GONE_SECONDS, "processes outlived the demo")
    (left,) = (folder / "tmp").glob("watchbill-demo-*")
    with demo(folder, "--workloads", "26") as running:
        assert not left.exists()
        assert running.end(signal.SIGTERM) == 0


def test_a_killed_fleet_ends_the_demo_with_an_error(folder: Path) -> None:
    with demo(folder, "--workloads", "26") as running:
        fleet = [pid for pid in running.family() if "simulator.fleet" in command_of(pid)]
        family = running.family()
        os.kill(fleet[-1], signal.SIGKILL)
        assert running.process.wait(20) not in (0, -signal.SIGKILL)
        assert not alive(family)
        output = running.output.read_text()
        assert "ended unexpectedly" in output
        assert "`--workloads`" in output
        assert "doctor" not in output, "no server is left that it could ask"


def command_of(pid: int) -> str:
    result = subprocess.run(
        ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return result.stdout


def test_it_outlives_the_shell_that_started_it(folder: Path) -> None:
    with demo(folder, "--workloads", "26") as running:
        for pid in running.family()[:2]:
            os.kill(pid, signal.SIGHUP)
        time.sleep(0.5)
        assert running.process.poll() is None
        assert running.workload_ids()
        assert running.end(signal.SIGTERM) == 0


def test_a_data_directory_goes_on_where_it_was(folder: Path) -> None:
    data = folder / "data"
    options = ("--workloads", "40", "--rate", "1", "--data-dir", str(data))
    with demo(folder, *options) as running:
        first, login = running.workload_ids(), running.login()
        assert running.end(signal.SIGTERM) == 0
    with demo(folder, *options) as running:
        second = running.workload_ids()
        assert len(first & second) >= len(first) - 6
        assert running.login()["clientSecret"] != login["clientSecret"]
        names = sorted(cluster["name"] for cluster in running.get("/api/v1/clusters"))
        assert len(names) == 2
        time.sleep(4)
        running.end(signal.SIGKILL)
    with demo(folder, *options) as running:
        third = running.workload_ids()
        assert len(second & third) >= len(second) - 12
        clusters = running.get("/api/v1/clusters")
        assert sorted(cluster["name"] for cluster in clusters) == names
        assert all(cluster["refused"] == [] for cluster in clusters)
        assert running.end(signal.SIGINT) == 0
    assert data.exists()


def test_two_demos_do_not_share_a_data_directory(folder: Path) -> None:
    data = folder / "data"
    with demo(folder, "--workloads", "13", "--data-dir", str(data)) as running:
        second = subprocess.run(
            [
                *(sys.executable, "-m", "watchbill", "demo", "--port", "0"),
                *("--data-dir", str(data)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert second.returncode != 0
        assert "Another demo is using" in second.stderr
        assert running.workload_ids()
        assert running.end(signal.SIGINT) == 0
