"""The frame around every command: exit codes, errors in one line, help that is quick, quiet ends."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.fixtures.command_line import FakeServer, aged, document, watchbill
from tests.unit.cli.test_failures import commands
from watchbill.cli.connection.kubectl_words import COMMANDS, OPTIONS, RESOURCES
from watchbill.client import Client

ME = (sys.executable, "-m", "watchbill")
KNOWN = dict(commands())
NOBODY = ("--url", "http://127.0.0.1:9", "--client-id", "a", "--client-secret", "b")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("version",), 0, ""),
        (("--version",), 0, ""),
        ((), 2, "Usage: watchbill"),
        (("gte",), 2, "error: No such command 'gte'. Did you mean 'get'?"),
        (("get", "--nope"), 2, "error: No such option"),
        (("get", "-o", "xml"), 2, "error: Invalid value for '--output'"),
        (("get", "--limit", "0"), 2, "error: Invalid value for '--limit'"),
        (("describe",), 2, "error: Missing argument 'NAME|ID'"),
        (("get",), 2, "error: The server's address, the client id and the client secret are not"),
        (("get", *NOBODY), 3, "error: Cannot reach http://127.0.0.1:9: Connection refused"),
        (("get", "--url", "ftp://x", *NOBODY[2:]), 2, "error: 'ftp://x' is not the UR"),
        (("login",), 2, "error: The server's address is not given."),
        (("login", "--url", "nonsense"), 2, "error: 'nonsense' is not the URL of a server."),
        (("agent",), 2, "error: The server's address is not given."),
        (("agent", "--server", "http://x"), 2, "error: The agent's credential is not given."),
        (
            ("agent", "--server", "http://x", "--credential", "/nonexistent"),
            2,
            "error: Cannot read the credential file",
        ),
        (("server", "--port", "99999"), 2, "error: Invalid value for '--port'"),
        (("server", "--log-level", "loud"), 2, "error: There is no log level 'loud'."),
        (("kinds", "show", "Nonesuch"), 1, "error: No definition is named 'Nonesuch'."),
        (("kinds", "check", "/nonexistent.yaml"), 1, "error: "),
    ],
)
async def test_exit_codes_and_first_words(
    arguments: tuple[str, ...], code: int, message: str
) -> None:
    outcome = await watchbill(*arguments)
    assert (outcome.code, outcome.err[: len(message)]) == (code, message)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "--columns", "name,colour"), "error: There is no column 'colour'."),
        (("idle", "--columns", "colour"), "error: There is no column 'colour'."),
        (("export", "--since", "yesterday"), "error: --since must be a date, got 'yesterday'."),
        (("usage", "--since", "yesterday"), "error: --since must be a date, got 'yesterday'."),
        (("usage", "--until", "12h"), "error: --until must be whole days, got '12h'."),
        (("admin", "audit", "--until", "x"), "error: --until must be a date, got 'x'."),
        (("top", "--pod", "a"), "error: --pod also needs the NAME of its workload."),
        (("pods", "-p", "a"), "error: --project works only with the NAME of a workload"),
        (("get", "--watch", "-o", "json"), "error: --watch works with lists"),
        (("get", "-l", "a in (b)"), "error: --label takes one KEY=VALUE"),
        (("compare", "a"), "error: Between 2 and 5 workloads can be compared, not 1."),
        (("why", "--deleted"), "error: A deleted workload is not pending."),
        (("get", "--time-zone", "Mars"), "error: There is no time zone 'Mars'."),
    ],
)
async def test_a_mistyped_option_is_told_before_a_missing_login(
    arguments: tuple[str, ...], message: str
) -> None:
    outcome = await watchbill(*arguments)
    assert (outcome.code, outcome.err[: len(message)]) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("list",), "`watchbill get` lists workloads"),
        (("ps",), "`watchbill get` lists workloads"),
        (("delete", "pod", "x"), "Watchbill never changes a cluster; use kubectl for that"),
        (("rollout", "restart", "x"), "Watchbill never changes a cluster; use kubectl for that"),
        (("get", "--phase", "Pending"), "-f phase==PHASE (--filter) lists one phase"),
        (("get", "-n", "vision"), "-p NAME (--project) lists one project; without queues"),
        (("get", "--all-namespaces"), "-A (--all-projects) lists every project"),
        (("get", "pod", "x"), "`watchbill pods` lists pods"),
        (("describe", "node", "x"), "`watchbill nodes` lists nodes"),
        (("describe",), "`watchbill get` lists the names"),
        (("compare",), "`watchbill get` lists the names"),
        (("admin", "cluster", "delete"), "`watchbill clusters` lists the names"),
        (("admin", "account", "create"), "see `watchbill admin account create --help`"),
        (("nodes", "--namespace", "x"), "see `watchbill nodes --help`"),
        (("logs", "--follow", "x"), "`watchbill logs NAME` prints the kubectl commands"),
        (("get", "--nope"), "see `watchbill get --help`"),
        (("frobnicate",), "see `watchbill --help`"),
    ],
)
async def test_words_of_kubectl_end_with_the_command_for_them(
    arguments: tuple[str, ...], hint: str
) -> None:
    outcome = await watchbill(*arguments)
    error, advice = outcome.err.splitlines()
    assert (outcome.code, error[:7]) == (2, "error: ")
    assert advice.startswith(f"hint: {hint}")


@pytest.mark.parametrize(
    ("word", "command"), [("pods", "pods"), ("nodes", "nodes"), ("NS", "projects")]
)
async def test_a_resource_where_a_name_belongs_is_answered_by_its_command(
    word: str, command: str
) -> None:
    async with FakeServer().running() as fake:
        outcome = await fake("get", word)
    assert outcome.code == 1
    assert f"`watchbill {command}`" in outcome.err


async def test_a_workload_may_bear_the_name_of_a_resource() -> None:
    async with FakeServer(live=[document(aged(1, name="pods"))]).running() as fake:
        outcome = await fake("get", "pods")
    assert outcome.code == 0


def test_every_hint_names_a_command_that_there_is() -> None:
    hints = [*COMMANDS.values(), *OPTIONS.values(), *RESOURCES.values()]
    for hint in hints:
        for line in re.findall("`watchbill ([a-z -]+)", hint):
            path = [word for word in line.split() if word.isalpha()]
            assert any(known.split()[: len(path)] == path for known in KNOWN), hint
    assert not set(COMMANDS) & {known.split()[0] for known in KNOWN}


async def test_a_wrong_secret_is_exit_code_3() -> None:
    async with FakeServer().running() as fake:
        outcome = await watchbill("get", "--client-secret", "wrong", environ=fake.environ)
    assert outcome.code == 3
    assert outcome.err.splitlines()[0] == "error: The client id or the secret is wrong."


async def test_debug_shows_the_traceback_and_still_ends_in_one_line() -> None:
    outcome = await watchbill("get", *NOBODY, "--debug")
    assert outcome.code == 3
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-2].startswith("error: Cannot reach")


async def test_a_fault_of_our_own_is_named_as_one() -> None:
    with mock.patch.object(Client, "snapshot", side_effect=KeyError("name")):
        async with FakeServer().running() as fake:
            outcome = await fake("get", "-o", "name")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "error: unexpected KeyError: 'name'",
        "hint: this is a bug in Watchbill; run again with WATCHBILL_DEBUG=1 and report its output",
    ]


async def test_an_answer_of_another_shape_is_no_fault_of_ours() -> None:
    broken = document(aged(1))
    del broken["name"]
    async with FakeServer(live=[broken]).running() as fake:
        outcome = await fake("get", "-o", "name")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("error: The answer did not come from a Watchbill server.\n")


async def test_words_from_a_server_move_no_cursor_in_an_error() -> None:
    fake = FakeServer()
    fake._list = _refusing  # type: ignore[method-assign]
    async with fake.running() as running:
        outcome = await running("get", "-f", "x", is_terminal=True)
    assert (outcome.code, outcome.err) == (
        2,
        "error: bad\\x1b[2J\\nerror: forged\nhint: do\\u202e\nhint: more\n",
    )


async def _refusing(request: object) -> object:
    from aiohttp import web

    body = {"code": 400, "message": "bad\x1b[2J\nerror: forged", "details": "do\u202e\nmore"}
    return web.json_response(body, status=400)


def test_help_loads_nothing_heavy() -> None:
    """How long it takes follows from what it imports; `python -m bench.cli` measures it."""
    program = (
        "import sys; from watchbill.cli.app import run; run(['--help']); "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(ended.stderr.split())
    assert loaded.isdisjoint(
        {"aiohttp", "asyncio", "asyncpg", "msgspec", "rich", "starlette", "structlog", "uvicorn"}
        | {"yaml"}
    )
    assert "describe" in ended.stdout


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([*ME, "kinds", "list"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


async def test_an_interrupt_is_130_and_quiet() -> None:
    """A server that takes the connection and never answers."""
    reached = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reached.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(*ME, "count", "--url", f"http://127.0.0.1:{port}", *NOBODY[2:]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what runs in the background with the interrupt ignored, and so would be its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    await asyncio.wait_for(reached.wait(), 120)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 120)
    listener.close()
    assert (process.returncode, out, err) == (130, b"", b""), err.decode()


async def test_output_that_the_locale_cannot_write_is_escaped() -> None:
    async with FakeServer(live=[document(aged(1, name="名前"))]).running() as fake:
        process = await asyncio.create_subprocess_exec(
            *(*ME, "get"),
            env=os.environ | fake.environ | {"PYTHONIOENCODING": "ascii"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"\\u540d\\u524d" in out


def test_completion_is_typers_and_asks_no_server() -> None:
    ended = subprocess.run(
        ME,
        env=os.environ
        | {
            "_WATCHBILL_COMPLETE": "complete_bash",
            "COMP_WORDS": "watchbill des",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert ended.stdout.split() == ["describe"]


JOB = """
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1
  kind: Job
  metadata:
    {name: train, creationTimestamp: 2026-11-20T08:00:00Z}
  spec: {template: {spec: {containers: [{name: a, image: x}]}}}
  status: {conditions: [{type: Failed, status: "True", message: boom}]}
"""


def test_a_definition_is_tried_on_an_object() -> None:
    """Nobody has applied it: the command gives it the uid and the namespace that it lacks."""
    shown = subprocess.run([*ME, "kinds", "show", "Job.batch"], capture_output=True, text=True)
    path = Path(shown.stdout.splitlines()[0].removeprefix("# "))
    tried = subprocess.run(
        [*ME, "kinds", "try", path], input=JOB, capture_output=True, text=True, check=True
    )
    assert "  phase: Failed\n" in tried.stdout
    assert "  phaseMessage: boom\n" in tried.stdout
    wrong = subprocess.run(
        [*ME, "kinds", "try", path.with_name("pod.yaml")], input=JOB, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: stdin holds no Pod")


async def test_definitions_are_checked_one_by_one(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: X\nstatuss: 3\n")
    good = tmp_path / "good.yaml"
    good.write_text("group: example.com\nkind: Experiment\ncategory: Train\n")
    outcome = await watchbill("kinds", "check", str(bad), str(good))
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: {bad}:2: statuss: unknown key")
    assert outcome.out == f"{good}: experiment.example.com is well defined\n"


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("get", "get [OPTIONS] [NAME|ID]"),
        ("nodes", "nodes [OPTIONS] [NODE]"),
        ("projects", "projects [OPTIONS] [PROJECT]"),
        ("kinds try", "kinds try [OPTIONS] [FILE]"),
    ],
)
async def test_what_may_be_left_out_stands_in_one_pair_of_brackets(
    command: str, usage: str
) -> None:
    outcome = await watchbill(*command.split(), "--help")
    assert outcome.out.splitlines()[0] == f"Usage: watchbill {usage}"


GROUPS = ("", "admin", "admin cluster", "admin account", "admin rule", "key", "kinds", "agent")


@pytest.mark.parametrize("group", GROUPS)
async def test_a_list_of_commands_says_whole_sentences(group: str) -> None:
    outcome = await watchbill(*group.split(), "--help")
    _, _, listed = outcome.out.partition("Commands:\n")
    assert "..." not in listed
    assert listed.count(".\n") + listed.count("?\n") >= len(re.findall(r"^  \w", listed, re.M))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pods", "Deleted pods instead of live ones."),
        ("pods", "Text in the name of the pod, its workload or its node."),
        ("admin cluster create", "NAME <str> Name of the new cluster."),
        ("get", "values of one KEY are alternatives, different KEYs must all match."),
    ],
)
async def test_help_says_what_an_option_does_in_this_command(command: str, words: str) -> None:
    outcome = await watchbill(*command.split(), "--help")
    assert words in " ".join(outcome.out.split())
