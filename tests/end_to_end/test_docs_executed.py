"""Every command of README.md, docs/operations.md, access.md, usage.md and cli.md is run, in the order written.

Paths and addresses are replaced by those of the test, and nothing else. `kubectl apply` is a stand-in that
keeps what it is given, since no cluster runs here; tests of the manifests hold that to Kubernetes' types.
"""

import asyncio
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drills.processes import free_port
from tests.conftest import Engine, fresh_database
from tests.fixtures.command_line import watchbill
from tests.fixtures.fleet import Fleet
from tests.fixtures.kubernetes.kube_api import KubeApi, kube_api
from tests.fixtures.kubernetes.replay import kubeconfig
from tests.fixtures.records import upsert
from watchbill.client import AgentClient

PROJECT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/operations.md", "docs/access.md", "docs/usage.md", "docs/cli.md")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "make demo": "test_demo.py runs `watchbill demo`; make itself installs the project first",
    "make test": "it runs this test",
    "export WATCHBILL_CREDENTIALS": "names the demo's login; here the context is used",
    "python3 -m venv": "test_wheel.py installs the package into an environment of its own",
    "useradd": "changes the machine: done by hand on a bare Debian, as the four lines after it",
    "install -D": "see `useradd`",
    "systemctl": "needs systemd as the first process",
    "journalctl": "needs systemd",
    "watchbill login": "asks a person to confirm in a browser: tests/api/access/test_login.py does",
    "watchbill key create": "acts as a person who has logged in: tests/unit/cli/test_login.py does",
}
"""Beginnings of commands that are not run here, each with the reason."""
RUNS_UNTIL_STOPPED = ("watchbill server", "watchbill agent --", "watchbill probe")


def written() -> Iterator[tuple[str, str]]:
    """Page and command, as written at a prompt."""
    for page in PAGES:
        for block in CONSOLE.findall((PROJECT / page).read_text(encoding="utf-8")):
            for line in re.findall(r"^\$ (.*)", block, re.MULTILINE):
                yield page, re.sub(r"\s+# .*", "", line)


def is_elsewhere(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in ELSEWHERE)


def test_whatever_is_not_run_here_is_still_written() -> None:
    commands = [command for _, command in written()]
    assert len(commands) >= 25
    for beginning in ELSEWHERE:
        assert any(command.startswith(beginning) for command in commands), beginning


@dataclass
class Machine:
    """Where a reader of the pages types. `folder` takes the place of their home, /etc, /var and /srv."""

    folder: Path
    environ: dict[str, str]
    kube: KubeApi
    url: str = ""
    client_id: str = ""
    secret: str = ""
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    def local(self, command: str) -> str:
        for there in ("/etc/watchbill/", "/var/backups/", "/srv/"):
            command = command.replace(there, f"{self.folder}/")
        command = command.replace("~/", f"{self.folder}/").replace(
            ".venv/bin/watchbill", "watchbill"
        )
        command = re.sub(r"https?://(localhost:8600|watchbill\.example\.com)", self.url, command)
        command = command.replace("--metrics-port 9465", f"--metrics-port {free_port()}")
        return re.sub(r"\bNAME\b", "research", re.sub(r"\bID\b", self.client_id, command))

    async def start(self, command: str, **environ: str) -> str:
        """A program that runs until it is stopped; what it prints first."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f"exec env {command}",
            env=self.environ | environ, cwd=self.folder,
            stdout=asyncio.subprocess.PIPE, stderr=(self.folder / "log").open("ab"),
        )  # fmt: skip
        self.running.append(process)
        assert process.stdout is not None
        printed = ""
        if command.endswith("watchbill server"):
            while "`watchbill admin recover`" not in printed:
                line = await asyncio.wait_for(process.stdout.readline(), 120)
                assert line, (self.folder / "log").read_text()[-3000:]
                printed += line.decode()
        return printed

    async def stop(self) -> None:
        """All of them, which must end in order."""
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0

    async def run(self, command: str) -> str:
        """A command that ends, in this process where it is ours alone; what it prints."""
        words = shlex.split(command)
        if words[0] == "watchbill" and "|" not in words:
            outcome = await watchbill(*words[1:], environ=self.environ)
            assert outcome.code == 0, (command, outcome.err)
            return outcome.out
        process = await asyncio.create_subprocess_exec(
            "bash", "-o", "pipefail", "-c", command, env=self.environ, cwd=self.folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode == 0, (command, output.decode())
        return output.decode()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    program(folder / "bin" / "watchbill", f'exec {sys.executable} -m watchbill "$@"')
    program(folder / "bin" / "kubectl", f"cat > {folder}/applied.yaml")
    (folder / "deploy").symlink_to(PROJECT / "deploy")
    environ = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "WATCHBILL_DATA_DIR": str(folder / "data"),
        "WATCHBILL_PORT": "0",
    }
    async with kube_api() as api:
        (folder / ".kube").mkdir()
        kubeconfig(folder / ".kube" / "config", api.url)
        here = Machine(folder, environ, api)
        try:
            yield here
        except BaseException:
            for process in here.running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            raise
        await here.stop()


async def set_scene(here: Machine) -> None:
    """What the pages speak of: the cluster north with the project vision and a workload that waits."""
    await here.run("watchbill admin cluster create north --output north.credential")
    credential = (here.folder / "north.credential").read_text()
    async with AgentClient(here.url, credential) as agent:
        fleet = Fleet(agent, datetime.now(UTC))
        await fleet.hello()
        waiting = fleet.pending(1, name="llama-sft-1", project_name="vision")
        await fleet.send(upsert(waiting))
    (rules,) = re.findall(
        r"^```yaml\n(name: access.*?)^```",
        (PROJECT / "docs" / "access.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    (here.folder / "access.yaml").write_text(rules)


async def test_every_command_does_what_it_says(
    private_dir: Path, embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(private_dir)
    database_url = await fresh_database(embedded_engine)
    async with machine(private_dir) as here:
        commands = [command for _, command in written() if not is_elsewhere(command)]
        # What README asks of the demo is asked of this server, once it is there.
        for written_command in sorted(commands, key=lambda command: command.startswith(".venv/")):
            command = here.local(written_command)
            if command.startswith("OTEL_"):
                await here.start(command, WATCHBILL_DATABASE_URL=database_url)
            elif command.startswith("watchbill server"):
                printed = await here.start(command)
                login = re.search(
                    r"(http://\S+)[\s\S]*client id +(\S+)\s+client secret +(\S+)", printed
                )
                assert login is not None
                here.url, here.client_id, here.secret = login.groups()
            elif command.startswith(RUNS_UNTIL_STOPPED):
                await here.start(command)
            elif command.startswith("watchbill context set"):
                monkeypatch.setattr(sys, "stdin", io.StringIO(f"{here.secret}\n"))
                await here.run(command)
                await set_scene(here)
            else:
                await here.run(command)
