"""Settings: every one has a range that is kept, a name that errors state, and a line in the documentation."""

import os
import re
from pathlib import Path

import pytest

from watchbill.errors import Invalid
from watchbill.settings.agent import agent_settings
from watchbill.settings.server import server_settings
from watchbill.settings.table import settings_table, unknown_variables

PROJECT = Path(__file__).parents[2]
AGENT = {"server_url": "https://watchbill.example.com", "credential": "wba-1"}
NUMBERS = [row for row in settings_table() if " number " in f"{row[2]} "]


def read(variable: str, text: str) -> object:
    if variable.startswith("WATCHBILL_AGENT_"):
        return agent_settings({variable: text}, **AGENT)
    return server_settings({variable: text})


@pytest.mark.parametrize(("variable", "words"), [(row[0], row[2]) for row in NUMBERS])
def test_a_number_keeps_to_its_range(variable: str, words: str) -> None:
    low, high = re.findall(r"[0-9.]+", words)
    for text in (low, high):
        read(variable, text)
    outside = (str(float(low) - 1), str(float(high) + 1))
    if "whole" in words:
        outside = (str(int(low) - 1), str(int(high) + 1))
    for text in (*outside, "nan", "inf", "-inf", "many", "", "0x10", "1,5", "\u0661"):
        with pytest.raises(Invalid) as refused:
            read(variable, text)
        assert refused.value.message == f"{variable} must be {words}, got '{text}'."


def test_every_number_has_a_range() -> None:
    assert len(NUMBERS) >= 15
    assert all(" from " in words for _, _, words, _ in NUMBERS)


def test_defaults_keep_to_the_ranges() -> None:
    for variable, _, _, default in NUMBERS:
        if default:
            read(variable, default)


def test_flags_keep_to_the_same_ranges() -> None:
    with pytest.raises(
        Invalid, match=r"^--port must be a whole number from 0 to 65535, got '70000'"
    ):
        server_settings({}, port=70_000)


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_reported() -> None:
    with pytest.raises(Invalid) as refused:
        server_settings({"WATCHBILL_PORT": "tcp://10.0.0.7:8600"})
    assert "enableServiceLinks" in (refused.value.details or "")


@pytest.mark.parametrize("text", ["TRUE?", "maybe", "2", ""])
def test_true_or_false(text: str) -> None:
    assert not agent_settings({"WATCHBILL_AGENT_PUSH_SAMPLES": "false"}, **AGENT).pushes_samples
    with pytest.raises(Invalid, match="must be true or false"):
        agent_settings({"WATCHBILL_AGENT_PUSH_SAMPLES": text}, **AGENT)


def test_lists_are_separated_by_commas() -> None:
    settings = server_settings({"WATCHBILL_TRUSTED_PROXIES": " 10.0.0.1, 10.1.0.0/16 ,"})
    assert settings.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")


@pytest.mark.parametrize("url", ["mysql://u:hunter2@db/x", "db.example.com", "//u:hunter2@db"])
def test_another_databases_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        server_settings({"WATCHBILL_DATABASE_URL": url})
    assert "WATCHBILL_DATABASE_URL" in refused.value.message
    assert "hunter2" not in f"{refused.value.message} {refused.value.details}"


@pytest.mark.parametrize("password", ["S3cr/et", "12/34secret", "S3cr#et", "S3cr?et", "a@b/c"])
def test_a_password_that_breaks_the_address_is_never_shown(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        server_settings({"WATCHBILL_DATABASE_URL": f"postgresql://wb:{password}@db.example.com/wb"})
    shown = f"{refused.value.message} {refused.value.details}"
    assert "wb:***@db.example.com" in shown
    assert password[:4] not in shown
    assert "%2F" in shown


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_READ_URL"])
def test_an_address_that_is_set_twice_is_refused(name: str, tmp_path: Path) -> None:
    """Nobody could tell which of the two databases is meant; a flag says it."""
    file = tmp_path / "url"
    file.write_text("postgresql://wb@b.example.com/wb")
    environ = {
        f"WATCHBILL_{name}": "postgresql://wb@a.example.com/wb",
        f"WATCHBILL_{name}_FILE": str(file),
    }
    with pytest.raises(Invalid, match=f"WATCHBILL_{name} and WATCHBILL_{name}_FILE are both set"):
        server_settings(environ)
    flag = {name.lower(): "postgresql://wb@c.example.com/wb"}
    assert getattr(server_settings(environ, **flag), name.lower()) == flag[name.lower()]


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert server_settings({"WATCHBILL_HOST": ""}).host == "127.0.0.1"
    with pytest.raises(Invalid, match="--host"):
        server_settings({}, host="")


def test_a_misspelt_variable_is_reported_with_the_one_that_was_meant() -> None:
    environ = {
        "WATCHBILL_DELETED_RETENTION": "30",
        "WATCHBILL_XYZZY": "1",
        "WATCHBILL_PORT": "8600",
        "WATCHBILL_SERVICE_HOST": "10.0.0.7",
        "WATCHBILL_PORT_8600_TCP_ADDR": "10.0.0.7",
        "PATH": "/bin",
    }
    assert list(unknown_variables(environ)) == [
        ("WATCHBILL_DELETED_RETENTION", "WATCHBILL_DELETED_RETENTION_DAYS"),
        ("WATCHBILL_XYZZY", ""),
    ]


def test_every_variable_that_the_code_names_is_in_the_table() -> None:
    known = {row[0] for row in settings_table()}
    for file in (PROJECT / "src" / "watchbill").rglob("*.py"):
        for name in re.findall(r'"(WATCHBILL_[A-Z_]*[A-Z])"', file.read_text(encoding="utf-8")):
            assert name in known, f"{file.name} reads {name}"


def test_the_documentation_lists_them_all() -> None:
    page = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = [
        f"| `{variable}` | {purpose} | {words} | {default} |"
        for variable, purpose, words, default in settings_table()
    ]
    listed = [line for line in page.splitlines() if line.startswith("| `")]
    assert listed == rows, "write the rows of settings_table() into the page"


def test_who_has_no_home_needs_one_only_for_the_embedded_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the image's user in a container, whose id no list of users has."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    named = server_settings({"WATCHBILL_DATABASE_URL": "postgresql://w@db.example.com/watchbill"})
    assert named.database_url is not None
    with pytest.raises(Invalid, match="no home folder"):
        server_settings({})
