"""Where a demo keeps its things, and what it says while it starts."""

import fcntl
import io
import json
import os
import tempfile
from pathlib import Path

import pytest

from simulator.model.names import cluster_name
from simulator.run import Progress, demo_home, write_credentials
from watchbill.errors import Conflict


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_of_its_own_goes_at_the_end_even_after_an_error(temporary: Path) -> None:
    with pytest.raises(RuntimeError), demo_home(None) as home:
        assert home.parent == temporary
        assert home.stat().st_mode & 0o777 == 0o711
        (home / "file").write_text("x")
        raise RuntimeError
    assert list(temporary.iterdir()) == []


def test_a_named_folder_stays_and_is_one_demos_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with demo_home(folder) as home:
        assert home == folder
        with pytest.raises(Conflict, match="Another demo is using"), demo_home(folder):
            pass
    with demo_home(folder):
        pass
    assert folder.is_dir()


def test_what_killed_demos_left_is_cleared_and_nothing_else(temporary: Path) -> None:
    left, used, foreign = (
        temporary / name for name in ("watchbill-demo-a", "watchbill-demo-b", "something-else")
    )
    for folder in (left, used, foreign):
        folder.mkdir()
        (folder / "demo.lock").touch()
    unmarked = temporary / "watchbill-demo-c"
    unmarked.mkdir()
    with (used / "demo.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with demo_home(None):
            assert not left.exists()
            assert used.exists()
            assert foreign.exists()
            assert unmarked.exists()


def test_credentials_are_whole_private_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "below" / "credentials.json"
    for secret in ("one", "two"):
        write_credentials(path, url="http://x", client_id="id", client_secret=secret)
    assert json.loads(path.read_text()) == {
        "url": "http://x",
        "clientId": "id",
        "clientSecret": "two",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["credentials.json"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_plain_where_nobody_sees_it_change() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin("Building")
    progress.count(1, 9)
    progress.done()
    first, second = stream.getvalue().splitlines()
    assert first == "Building ..."
    assert second.startswith("Ready after ")
    assert "\x1b" not in stream.getvalue()


def test_progress_moves_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("Building")
    progress.count(3, 9)
    progress.done()
    assert "Building ... 3 of 9" in stream.getvalue()
    assert "Building: done\n" in stream.getvalue()


def test_progress_survives_a_reader_that_has_gone() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = Progress(Gone())
    progress.begin("Building")
    progress.done()


def test_cluster_names_never_repeat() -> None:
    names = [cluster_name(index) for index in range(30)]
    assert len(set(names)) == 30
