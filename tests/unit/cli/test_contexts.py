"""Contexts: kept in a file of one's own, taken as a whole, and only where nothing else speaks."""

import io
import json
import stat
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.fixtures.command_line import Outcome, watchbill
from watchbill.cli.connection.session import NO_LOGIN, CliLogin, with_context
from watchbill.errors import Invalid, NotFound

URL = "https://watchbill.example.com"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


async def keep(environ: dict[str, str], name: str, url: str = URL, *, secret: str) -> Outcome:
    with mock.patch.object(sys, "stdin", io.StringIO(secret + "\n")):
        return await watchbill(
            *("context", "set", name, "--url", url, "--client-id", f"wbc-{name}"), environ=environ
        )


def chosen(
    environ: dict[str, str], flags: CliLogin = NO_LOGIN, name: str | None = None
) -> CliLogin:
    return with_context(flags, name, None, environ)


async def test_kept_listed_used_and_forgotten(environ: dict[str, str], tmp_path: Path) -> None:
    assert chosen(environ) == NO_LOGIN
    assert (await keep(environ, "prod", secret="s1")).code == 0
    assert (await keep(environ, "lab", "http://127.0.0.1:8600", secret="s2")).code == 0
    path = tmp_path / "watchbill" / "contexts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"

    listed = await watchbill("context", "list", environ=environ)
    assert [line.split() for line in listed.out.splitlines()] == [
        ["CURRENT", "NAME", "URL", "CLIENT-ID"],
        ["-", "lab", "http://127.0.0.1:8600", "wbc-lab"],
        ["*", "prod", URL, "wbc-prod"],
    ]
    assert "s1" not in listed.out + listed.err
    assert chosen(environ) == CliLogin(url=URL, client_id="wbc-prod", client_secret="s1")

    assert (await watchbill("context", "use", "lab", environ=environ)).code == 0
    assert chosen(environ).client_secret == "s2"
    assert (await watchbill("context", "use", "nowhere", environ=environ)).code == 1
    assert (await watchbill("context", "delete", "lab", environ=environ)).code == 0
    assert chosen(environ) == NO_LOGIN
    assert "s2" not in path.read_text()


async def test_what_speaks_before_the_context_in_use(environ: dict[str, str]) -> None:
    await keep(environ, "prod", secret="s1")
    await keep(environ, "lab", "http://lab.example.com", secret="s2")
    other = CliLogin(url="http://other.example.com")
    assert chosen(environ, other) == other, "no secret goes to a server that it is not of"
    for variable in ("WATCHBILL_URL", "WATCHBILL_CLIENT_ID", "WATCHBILL_CREDENTIALS"):
        assert chosen(environ | {variable: "x"}) == NO_LOGIN
    assert chosen(environ | {"RUNAI_BASE_URL": "x"}).url == URL
    assert chosen(environ, name="lab").client_secret == "s2"
    assert (
        chosen(environ | {"WATCHBILL_CONTEXT": "lab", "WATCHBILL_URL": "x"}).client_secret == "s2"
    )
    with pytest.raises(Invalid, match="different servers"):
        chosen(environ, other, "lab")
    with pytest.raises(NotFound, match="no context 'x'"):
        chosen(environ, name="x")
    mine = chosen(environ, CliLogin(client_id="me", client_secret="mine"), "lab")
    assert mine == CliLogin(url="http://lab.example.com", client_id="me", client_secret="mine")


async def test_a_file_that_others_may_read_or_that_is_none(
    environ: dict[str, str], tmp_path: Path
) -> None:
    await keep(environ, "prod", secret="s1")
    path = tmp_path / "watchbill" / "contexts.json"
    path.chmod(0o640)
    outcome = await watchbill("count", environ=environ)
    assert (outcome.code, "chmod 600" in outcome.err) == (2, True)
    path.chmod(0o600)
    for text in ("", "[]", '{"contexts": {"x": {"url": 5}}}', json.dumps({"contexts": {"x": {}}})):
        path.write_text(text)
        assert (await watchbill("count", environ=environ)).code == 2


async def test_what_makes_no_context(environ: dict[str, str], tmp_path: Path) -> None:
    assert (await keep(environ, "prod", "nowhere", secret="s")).code == 2
    assert (await keep(environ, "prod", secret="")).code == 2
    assert (await watchbill("context", "set", "x", "--url", URL, environ=environ)).code == 2
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"url": URL, "clientId": "a", "clientSecret": "b"}))
    arguments = ("context", "set", "demo", "--credentials", str(file))
    assert (await watchbill(*arguments, environ=environ)).code == 0
    assert chosen(environ) == CliLogin(url=URL, client_id="a", client_secret="b")
