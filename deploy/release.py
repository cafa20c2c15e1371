"""`python deploy/release.py FOLDER`: adds to a wheel and an sdist what a release has besides.

The manifests as an archive, a bill of materials (CycloneDX) of everything that the wheel is installed with, and
checksums of all of it.
"""

import hashlib
import json
import re
import sys
import tarfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
NAME = "watchbill"


def main(folder: Path) -> None:
    version = distribution(NAME).version
    with tarfile.open(folder / f"{NAME}-{version}-manifests.tar.gz", "w:gz") as archive:
        for part in ("kubernetes", "prometheus", "grafana", "systemd", "compose", "image"):
            archive.add(PROJECT / "deploy" / part, arcname=f"{NAME}-{version}/{part}")
    bill = json.dumps(bill_of_materials(), indent=2) + "\n"
    (folder / f"{NAME}-{version}-sbom.cdx.json").write_text(bill, encoding="utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def bill_of_materials() -> dict[str, Any]:
    """Of the distributions that are installed now, which the constraints pin."""
    installed = dependencies(f"{NAME}[otel]")
    root = installed.pop(normal(NAME))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(root), "type": "application"}},
        "components": [component(installed[name]) for name in sorted(installed)],
    }


def dependencies(name: str) -> dict[str, Distribution]:
    """The distribution, with the extras that are named in brackets, and all that it needs at run time, by
    normal name."""
    distributions: dict[str, Distribution] = {}
    wanted = [Requirement(name)]
    while wanted:
        requirement = wanted.pop()
        if normal(requirement.name) in distributions:
            continue
        installed = distributions[normal(requirement.name)] = distribution(requirement.name)
        for text in installed.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                wanted.append(needed)
    return distributions


def component(package: Distribution) -> dict[str, Any]:
    name = normal(package.metadata["Name"])
    licence = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    entry: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": f"pkg:pypi/{name}@{package.version}",
    }
    if licence and "\n" not in licence:
        entry["licenses"] = [{"license": {"name": licence}}]
    return entry


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
