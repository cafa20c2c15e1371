"""Every command meets every failure: a cause, what to do, and a documented exit code; never "a bug"."""

import asyncio
import contextlib
import errno
import io
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from aiohttp import web

from tests.fixtures.command_line import FakeServer, Outcome, Screen, aged, document, watchbill
from tests.unit.cli.test_usage import ROWS as USAGE_ROWS
from tests.unit.cli.test_usage import answer as usage_report
from watchbill.api.http.listen import open_listener
from watchbill.cli.app import build
from watchbill.errors import Unavailable

RELEASES = Path(__file__).parents[2] / "fixtures" / "releases"
OPTIONS: dict[str, tuple[str, ...]] = {
    "agent manifest": ("--name", "east"),
    "open": ("east",),
    "compare": ("west",),
    "admin rule add": ("--role", "viewer", "--user", "ada@example.com"),
    "admin cluster delete": ("--yes",),
    "admin cluster repin": ("--yes",),
    "admin cluster release": ("--yes",),
}
"""What a command needs, beside the arguments that must be given, to ask the server and nobody else."""
OTHERWISE = {"doctor", "mcp", "admin apply", "probe"}
"""Looks for failures itself; needs an extra; needs a file; runs an agent."""
STATUSES = {401: 3, 403: 1, 404: 1, 429: 1, 500: 3, 503: 3}
"""What the server answers, and the exit code that docs/cli.md names."""


def commands(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    import typer

    node = node or typer.main.get_command(build())
    for name, child in getattr(node, "commands", {}).items():
        yield from commands(child, (*path, name))
    if not hasattr(node, "commands"):
        yield " ".join(path), node


def asking() -> list[str]:
    """The commands that ask the server."""
    return [
        path
        for path, command in commands()
        if any(parameter.name == "client_secret" for parameter in command.params)
        and path not in OTHERWISE
    ]


COMMANDS = dict(commands())


def words(command: str) -> list[str]:
    """The command line, with a word for every argument that must be given."""
    arguments = [
        "east"
        for parameter in COMMANDS[command].params
        if parameter.param_type_name == "argument" and parameter.required
    ]
    return [*command.split(), *arguments, *OPTIONS.get(command, ())]


def assert_can_be_followed(outcome: Outcome, code: int) -> None:
    lines = outcome.err.splitlines()
    assert outcome.code == code, outcome.err
    assert lines[0].startswith("error: ")
    assert "bug in Watchbill" not in outcome.err
    assert "unexpected" not in outcome.err
    assert "[Errno" not in outcome.err
    assert "--debug" not in outcome.err


@pytest.mark.parametrize("command", asking())
async def test_a_server_that_is_down(command: str) -> None:
    outcome = await watchbill(*words(command), environ=_environ("http://127.0.0.1:9"))
    assert_can_be_followed(outcome, 3)
    assert outcome.err.splitlines()[1:] == [
        "hint: check the URL, and that `watchbill server` runs there"
    ]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("command", asking())
async def test_what_the_server_refuses(command: str, status: int) -> None:
    async with refusing(lambda request: _refusal(status)) as server:
        outcome = await watchbill(*words(command), environ=server.environ)
    assert_can_be_followed(outcome, STATUSES[status])
    assert status == 404 or "hint: " in outcome.err


@pytest.mark.parametrize("command", asking())
async def test_something_else_answers(command: str) -> None:
    async with refusing(lambda request: web.Response(text="<html>hello</html>")) as server:
        outcome = await watchbill(*words(command), environ=server.environ)
    if command in ("admin account disable", "admin rule remove", "key delete"):
        return  # a success without a body is all that these wait for
    if command in ("admin user disable", "admin user enable", "export"):
        return
    assert_can_be_followed(outcome, 3)
    assert "did not come from a Watchbill server" in outcome.err


async def test_tls_where_there_is_none() -> None:
    async with FakeServer().running() as server:
        url = server.url.replace("http://", "https://")
        outcome = await watchbill("get", environ=_environ(url))
    assert_can_be_followed(outcome, 3)
    assert "does not speak TLS" in outcome.err


class Full(Screen):
    """A disk without space."""

    def __init__(self) -> None:
        super().__init__(is_terminal=False)

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        return


@pytest.mark.parametrize("command", ["version", "kinds list", "get", "why", "clusters"])
async def test_a_full_disk(command: str) -> None:
    async with FakeServer(live=[document(aged(1))]).running() as server:
        with mock.patch("tests.fixtures.command_line.Screen", _first_screen(Full)):
            outcome = await watchbill(*command.split(), environ=server.environ)
    assert_can_be_followed(outcome, 1)
    assert outcome.err.splitlines() == [
        "error: Cannot write the output: No space left on device.",
        "hint: free space on the disk, or write somewhere else",
    ]


def _first_screen(kind: Callable[[], Screen]) -> Callable[..., Screen]:
    """Stdout is of that kind, stderr is as always."""
    made: list[Screen] = []

    def screen(*, is_terminal: bool) -> Screen:
        made.append(Screen(is_terminal=is_terminal) if made else kind())
        return made[-1]

    return screen


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["kinds", "check", "MISSING"], 1),
        (["kinds", "import", "MISSING"], 2),
        (["kinds", "import", "BINARY"], 2),
        (["kinds", "check", "BINARY"], 1),
        (["kinds", "check", "FOLDER"], 1),
        (["kinds", "list", "--kinds", "MISSING"], 2),
        (["get", "--credentials", "MISSING"], 2),
        (["get", "--credentials", "GARBLED"], 2),
        (["admin", "apply", "-f", "MISSING"], 2),
        (["agent", "--server", "http://127.0.0.1:9", "--credential", "MISSING"], 2),
        (["agent", "--server", "http://127.0.0.1:9", "--credential", "GARBLED"], 2),
        (["agent", "--server", "http://127.0.0.1:9"], 2),
        (["agent"], 2),
        (["server", "--database-url", "postgre://ada:hunter2@db.example.com/x"], 2),
        (["server", "--database-url", "postgresql://ada:hunter2@db.example.com:port/x"], 2),
        (["agent", "--server", "watchbill.example.com", "--credential", "CREDENTIAL"], 2),
        (["server", "--database-url", "postgresql://ada:hunter2@[::1/x"], 2),
        (["server", "--database-url", "postgresql://ada@db.example.com/x?sslmode=on"], 2),
        (["login"], 2),
        (["logout"], 2),
    ],
)
async def test_files_and_settings(tmp_path: Path, words: list[str], code: int) -> None:
    garbled = tmp_path / "garbled"
    garbled.write_text("{")
    garbled.chmod(0o600)
    credential = tmp_path / "credential"
    credential.write_text("wba.x.y")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    files = {
        "CREDENTIAL": str(credential),
        "MISSING": str(tmp_path / "missing"),
        "GARBLED": str(garbled),
        "BINARY": str(binary),
        "FOLDER": str(tmp_path),
    }
    environ = {"WATCHBILL_LOGIN_FILE": str(tmp_path / "login"), **_environ("http://127.0.0.1:9")}
    outcome = await watchbill(
        *(files.get(word, word) for word in words),
        environ={} if words[0] in ("login", "logout", "agent") else environ,
    )
    assert outcome.code == code, outcome.err
    assert "bug in Watchbill" not in outcome.err
    assert "hunter2" not in outcome.err
    assert outcome.err.startswith("error: ")
    assert "Errno" not in outcome.err
    assert "codec" not in outcome.err


def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    url = "postgresql://ada:hunter2@127.0.0.1:9/x"
    outcome = process("server", "--port", "0", WATCHBILL_DATABASE_URL=url)
    assert outcome.code == 3
    assert "WATCHBILL_DATABASE_URL is postgresql://ada:***@127.0.0.1:9/x" in outcome.err
    assert "refused" in outcome.err
    assert "hunter2" not in outcome.err


@pytest.mark.parametrize("command", [("backup", "FILE"), ("admin", "recover")])
@pytest.mark.parametrize(
    ("address", "code", "cause"),
    [
        ("postgresql://ada:hunter2@127.0.0.1:9/x", 3, "the connection is refused"),
        ("postgresql://ada:hunter2@host.invalid/x", 3, "the host's name is not known"),
        ("postgre://ada:hunter2@db.example.com/x", 2, "must begin with postgresql://"),
        ("postgresql://ada:hunter2@db.example.com:99999/x", 2, "a port that is not a number"),
    ],
)
async def test_commands_that_open_the_database_say_why_they_cannot(
    command: tuple[str, ...], address: str, code: int, cause: str, tmp_path: Path
) -> None:
    words = [str(tmp_path / "b.dump") if word == "FILE" else word for word in command]
    outcome = await watchbill(*words, environ={"WATCHBILL_DATABASE_URL": address})
    assert_can_be_followed(outcome, code)
    assert cause in outcome.err
    assert "WATCHBILL_DATABASE_URL" in outcome.err
    assert "hunter2" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def refuse_the_password(connection: socket.socket) -> None:
    """A PostgreSQL that wants no TLS and knows another password, in the words of its protocol."""
    with connection:
        while request := connection.recv(4096):
            if request[4:8] == b"\x04\xd2\x16/":  # SSLRequest
                connection.sendall(b"N")
                continue
            fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "ada"\0\0'
            connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            return


@pytest.fixture
def strict_database() -> Iterator[str]:
    """The address of a database, with a password that is wrong."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                refuse_the_password(listener.accept()[0])

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"postgresql://ada:hunter2@127.0.0.1:{listener.getsockname()[1]}/x"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "command", ["server --port 0", "backup FILE", "restore DUMP", "admin recover"]
)
def test_a_wrong_password_of_the_database(
    strict_database: str, command: str, tmp_path: Path
) -> None:
    files = {"FILE": str(tmp_path / "x"), "DUMP": str(RELEASES / "0.1.0" / "backup.dump")}
    words = [files.get(word, word) for word in command.split()]
    outcome = process(*words, WATCHBILL_DATABASE_URL=strict_database)
    assert outcome.code == 3, outcome.err
    assert "The database refuses the login." in outcome.err
    assert "Check user and password in WATCHBILL_DATABASE_URL" in outcome.err
    assert "bug in Watchbill" not in outcome.err
    assert "hunter2" not in outcome.err
    assert list(tmp_path.iterdir()) == []


class _Unread(io.BytesIO):
    def write(self, data: Any) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Left(Screen):
    """A pipe that nobody reads any more: what is written to it, as text or as bytes, fails."""

    def __init__(self) -> None:
        io.TextIOWrapper.__init__(self, _Unread(), encoding="utf-8", write_through=True)
        self._is_terminal = False

    def flush(self) -> None:
        return


@pytest.mark.parametrize(
    "command",
    [
        *("get", "get -o json", "get -o csv", "count", "export", "describe llama-sft-1"),
        *("why", "why llama-sft-1", "compare llama-sft-1 llama-sft-1", "history llama-sft-1"),
        *("tree llama-sft-1", "top", "top llama-sft-1", "usage -o json", "capacity", "clusters"),
        *("clusters -o yaml", "nodes", "pods", "projects", "departments", "doctor", "version"),
        *("kinds list", "kinds show Job", "workload list", "admin cluster list"),
    ],
)
async def test_a_reader_that_has_left_ends_every_family_quietly(command: str) -> None:
    live, usage = [document(aged(1))], usage_report(*USAGE_ROWS)
    export = json.dumps(live[0]).encode() + b"\n"
    async with FakeServer(live=live, usage=usage, export=export).running() as server:
        with mock.patch("tests.fixtures.command_line.Screen", _first_screen(Left)):
            outcome = await watchbill(*command.split(), environ=server.environ)
    assert (outcome.code, outcome.err) == (141, "")


@pytest.mark.parametrize("command", ["version", "kinds list", "--help"])
def test_a_reader_that_leaves_after_the_first_line_ends_nothing_badly(command: str) -> None:
    line = f'("{sys.executable}" -m watchbill {command}; echo $? >&2) | head -n 1'
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert ended.stderr.strip() in ("0", "141"), ended.stderr
    assert len(ended.stdout.splitlines()) == 1


@pytest.mark.parametrize("command", [["server"], ["mcp", "--http", "--url", "http://127.0.0.1:9"]])
def test_a_port_that_is_taken(command: list[str], tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        data = ["--data-dir", str(tmp_path)] if command == ["server"] else []
        outcome = process(*command, "--port", port, *data)
    assert_can_be_followed(outcome, 3)
    assert f"Cannot listen on 127.0.0.1:{port}" in outcome.err
    assert "--port" in outcome.err


async def test_a_credential_goes_into_a_file_whole_or_no_cluster_is_made(tmp_path: Path) -> None:
    file = tmp_path / "east.credential"
    async with refusing(_created) as server:
        outcome = await watchbill(
            "admin", "cluster", "create", "east", "--output", str(file), environ=server.environ
        )
        assert outcome.code == 0, outcome.err
        assert file.read_text() == "wba.x.y\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert outcome.out == ""
        again = await watchbill(
            "admin", "cluster", "create", "east", "--output", str(file), environ=server.environ
        )
        nowhere = await watchbill(
            *("admin", "cluster", "create", "east", "--output", "/dev/null/east"),
            environ=server.environ,
        )
    assert (again.code, nowhere.code) == (2, 1)
    assert file.read_text() == "wba.x.y\n"
    assert len(server.asked("/api/v1/clusters")) == 1
    async with refusing(lambda request: _refusal(503)) as server:
        other = tmp_path / "west.credential"
        outcome = await watchbill(
            "admin", "cluster", "create", "west", "--output", str(other), environ=server.environ
        )
    assert outcome.code == 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("192.0.2.1", "This machine has no such address"),  # for documentation, so nobody's
        ("host.invalid", "not known here"),
    ],
)
def test_an_address_that_nobody_can_listen_on(host: str, hint: str) -> None:
    with pytest.raises(Unavailable) as refused:
        open_listener(host, 0)
    assert hint in (refused.value.details or "")


async def test_an_agent_whose_credential_is_revoked(tmp_path: Path) -> None:
    """What it says is about the cluster, not about a client id."""
    file, kubeconfig = tmp_path / "credential", tmp_path / "kubeconfig"
    file.write_text(f"wba.{UUID(int=1)}.secret")
    async with refusing(lambda request: _refusal(401)) as server:
        kubeconfig.write_text(KUBECONFIG.replace("SERVER", server.url))
        outcome = await asyncio.to_thread(
            process,
            *("agent", "--server", server.url, "--credential", str(file)),
            *("--kubeconfig", str(kubeconfig)),
        )
    assert outcome.code == 3
    assert "watchbill admin cluster create" in outcome.err.splitlines()[-1]
    assert "client id" not in outcome.err


KUBECONFIG = """apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: SERVER}}]
users: [{name: x, user: {token: t}}]
"""


def process(*words: str, **environ: str) -> Outcome:
    """A command that handles signals, so needs a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "watchbill", *words],
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_an_output_that_was_closed_before(closed: str) -> None:
    """The shell's `>&-`: there is no stream to write to, and no other file takes its number."""
    command = f'"{sys.executable}" -m watchbill version {closed}'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("watchbill ") is (closed == "2>&-")


def test_an_input_that_was_closed_before_is_empty_and_stays_a_place_of_its_own() -> None:
    """libuv aborts a process that has a socket as its first descriptor."""
    command = f'"{sys.executable}" -m watchbill kinds try --unknown <&-'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ended.stderr.startswith("error: stdin holds no object")
    code = (
        "from watchbill.cli.app import run; run(['version']); print(open('/dev/null').fileno() > 2)"
    )
    command = f'"{sys.executable}" -c "{code}" <&- 2>&-'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "True"


def _created(request: web.Request) -> web.Response:
    body = {"id": "00000000-0000-0000-0000-000000000001", "name": "east", "credential": "wba.x.y"}
    return web.json_response(body, status=201)


def _refusal(status: int) -> web.Response:
    return web.json_response({"code": status, "message": "No."}, status=status)


def _environ(url: str) -> dict[str, str]:
    return {
        "WATCHBILL_URL": url,
        "WATCHBILL_CLIENT_ID": "wbc-1",
        "WATCHBILL_CLIENT_SECRET": "secret",
    }


class Refusing(FakeServer):
    """Answers every request but the login with what a test says."""

    answer: Callable[[web.Request], web.Response]

    def _application(self) -> web.Application:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.path == "/api/v2/token":
                return await self._token(request)
            return self.answer(request)

        app = web.Application(middlewares=[self._remember])
        app.router.add_route("*", "/{path:.*}", handle)
        return app


def refusing(answer: Callable[[web.Request], web.Response]) -> Any:
    server = Refusing()
    server.answer = answer
    return server.running()
