"""Where the address and the login come from, and that no server is ever sent another's secret."""

import json
from pathlib import Path

import pytest

from watchbill.cli.connection.session import CliLogin, find_login
from watchbill.errors import Invalid

OURS = {
    "WATCHBILL_URL": "http://ours",
    "WATCHBILL_CLIENT_ID": "our-id",
    "WATCHBILL_CLIENT_SECRET": "our-secret",
}
RUNAI = {
    "RUNAI_BASE_URL": "https://runai",
    "RUNAI_CLIENT_ID": "runai-id",
    "RUNAI_CLIENT_SECRET": "runai-secret",
}
NO_FLAGS = CliLogin()


def written(path: Path, **members: object) -> Path:
    path.write_text(json.dumps(members))
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    return written(
        tmp_path / "named.json", url="http://file", clientId="file-id", clientSecret="file-secret"
    )


def test_flags_win_over_everything(named: Path) -> None:
    flags = CliLogin(url="http://flag", client_id="flag-id", client_secret="flag-secret")
    assert find_login(flags, named, OURS | RUNAI) == flags


def test_a_flag_replaces_only_what_it_names(named: Path) -> None:
    result = find_login(CliLogin(url="http://flag"), named, OURS)
    assert result == CliLogin(url="http://flag", client_id="file-id", client_secret="file-secret")


def test_the_file_wins_over_the_environment(named: Path) -> None:
    assert find_login(NO_FLAGS, named, OURS).client_id == "file-id"
    environ = OURS | RUNAI | {"WATCHBILL_CREDENTIALS": str(named)}
    assert find_login(NO_FLAGS, None, environ).url == "http://file"


def test_the_files_flag_wins_over_the_files_variable(named: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "b.json", url="http://b", clientId="b", clientSecret="b")
    environ = {"WATCHBILL_CREDENTIALS": str(named)}
    assert find_login(NO_FLAGS, other, environ).url == "http://b"


def test_our_variables_win_over_run_ais() -> None:
    assert find_login(NO_FLAGS, None, OURS | RUNAI).url == "http://ours"
    assert find_login(NO_FLAGS, None, RUNAI) == CliLogin(
        url="https://runai", client_id="runai-id", client_secret="runai-secret"
    )


@pytest.mark.parametrize("ours", list(OURS))
def test_run_ais_secret_never_completes_our_login(ours: str) -> None:
    with pytest.raises(Invalid, match="not given"):
        find_login(NO_FLAGS, None, RUNAI | {ours: OURS[ours]})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "The server's address, the client id and the client secret are not given."),
        ({"WATCHBILL_URL": "http://x"}, "The client id and the client secret are not given."),
        ({k: v for k, v in OURS.items() if "SECRET" not in k}, "The client secret is not given."),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_give_it(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(Invalid) as caught:
        find_login(NO_FLAGS, None, environ)
    assert caught.value.message == message
    assert "--credentials FILE" in str(caught.value.details)
    assert "WATCHBILL_CLIENT_SECRET" in str(caught.value.details)


@pytest.mark.parametrize("content", ["{", "[]", '{"url": 3}', "\x00"])
def test_a_file_that_is_no_credentials(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(Invalid, match=r"credentials file .*bad\.json is not (a )?JSON"):
        find_login(NO_FLAGS, path, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="Cannot read"):
        find_login(NO_FLAGS, tmp_path / "none.json", OURS)


def test_an_address_without_a_scheme() -> None:
    with pytest.raises(Invalid, match="not the URL"):
        find_login(CliLogin(url="watchbill.example.com"), None, OURS)
