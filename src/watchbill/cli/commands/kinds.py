"""`kinds …`: what is known of each kind, and a new definition tried on real objects. Asks no server."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection.errors import FAILED, print_message
from watchbill.cli.kinds_input import (
    collect_objects,
    collect_topmost,
    read_documents,
)
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import NONE
from watchbill.cli.output.terminal import Terminal, table_lines
from watchbill.errors import Invalid, NotFound
from watchbill.files import read_text

if TYPE_CHECKING:
    from watchbill.kinds.definition.definition import Definition, Definitions
    from watchbill.kinds.derive import Derived
    from watchbill.kinds.objects.objects import Object, WorkloadObjects


ExtraKinds = Annotated[
    Path | None,
    typer.Option(
        "--kinds",
        metavar="DIR",
        help="A folder with further definitions, which override the built-in ones.",
    ),
]


def list_kinds(
    kinds: ExtraKinds = None,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Print no header line.")] = False,
) -> None:
    """List the kinds that have a definition; workloads of other kinds are recognized by their pods.

    ITS-PODS: `ends` where pods are expected to finish, as of a Job; `stays` where they keep running, as of a
    Deployment.
    """
    rows = [
        [
            definition.key.kind,
            definition.key.group or "core",
            definition.category or NONE,
            definition.distributed_framework or NONE,
            "ends" if definition.runs_to_end else "stays",
            Path(definition.file).name,
        ]
        for definition in _defined(_load(kinds))
    ]
    headers = header_row(
        "kind", "group", "category", "distributedFramework", "endsByItself", "file"
    )
    for line in table_lines(None if no_headers else headers, rows, Terminal()):
        print(line)


def show(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="As in Job or Job.batch.", show_default=False)
    ],
    kinds: ExtraKinds = None,
) -> None:
    """Print a kind's definition: a file to start from when another kind needs one."""
    known = _defined(_load(kinds))
    matches = [
        definition
        for definition in known
        if kind.lower() in (definition.key.kind.lower(), _full_name(definition))
    ]
    if not matches:
        names = ", ".join(_shown_name(definition, known) for definition in known)
        raise NotFound(f"No definition is named '{kind}'.", details=f"kinds: {names}")
    for definition in matches:
        print(f"# {definition.file}")
        print(Path(definition.file).read_text(encoding="utf-8"), end="")


def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Definitions, as YAML files.")
    ],
) -> None:
    """Check definitions: their form, their members, and that every expression compiles."""
    from watchbill.kinds.definition.loader import load_definition

    failures = 0
    for path in files:
        try:
            definition = load_definition(path)
        except Invalid as error:
            failures += 1
            print_message("error", error.message)
            if error.details:
                print_message("hint", error.details)
        else:
            print(f"{path}: {_full_name(definition)} is well defined")
    if failures:
        raise typer.Exit(FAILED)


def import_definition(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A Karta or a ResourceInterface in YAML.", show_default=False
        ),
    ],
) -> None:
    """Convert a Karta or ResourceInterface to a definition; what is covered and what is not goes to stderr."""
    from watchbill.kinds.definition.karta import import_karta, is_karta
    from watchbill.kinds.definition.loader import load_definition

    document = next(read_documents(read_text(file), str(file)), None)
    if not is_karta(document):
        raise Invalid(
            f"{file} holds neither a Karta nor a ResourceInterface.",
            details="kubectl get kartas.run.ai NAME -o yaml prints one",
        )
    assert document is not None
    imported = import_karta(document)
    load_definition(file)  # its expressions compile, or the error names the place
    print(imported.text, end="")
    for mark, sentences in (
        ("covered", imported.covered),
        ("filled in by the general rules", imported.filled),
        ("left out", imported.left_out),
    ):
        for sentence in sentences:
            print_message(mark, sentence)


def try_definition(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A definition in YAML.", show_default=False),
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Take the topmost object, whatever its kind.")
    ] = False,
) -> None:
    """Show the record that a definition derives from objects on stdin: `kubectl get … -o yaml | watchbill kinds
    try FILE`.

    The first object of the definition's kind is the workload; pods, services and the rest belong to it. With
    --unknown it is the topmost object; where its kind has no definition, only its metadata is read.
    """
    from watchbill.kinds.definition.loader import load_definition

    if (file is None) != unknown:
        raise Invalid("kinds try takes either a FILE or --unknown.")
    documents = list(read_documents(sys.stdin.read()))
    if file is None:
        definitions = _load(None)
        objects = collect_topmost(documents, definitions)
        Terminal().write(_report(_derived(objects, definitions)))
        return
    definition = load_definition(file)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, Path(folder) / "tried.yaml")
        definitions = _load(Path(folder))
    objects = collect_objects(documents, definition)
    Terminal().write(_report(_derived(objects, definitions)))
    _explain(definition, objects.root)


def _explain(definition: "Definition", root: "Object") -> None:
    """Say which expressions failed on the object; the record reads what they would tell as absent."""
    from watchbill.kinds.definition.program import failures
    from watchbill.kinds.objects.json_access import group_version

    source = definition.program(group_version(root)[1]).source
    for place, reason in failures(source, root):
        print_message("note", f"{place} {reason}")


def _report(derived: "Derived") -> bytes:
    from watchbill.cli.output.terminal import yaml_document

    record = derived.record
    return yaml_document(
        {
            "workload": _plain(record.workload),
            "elements": _plain(record.elements),
            "usage": _plain(record.usage),
            "transitions": _plain(derived.transitions),
        }
    )


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))


def _load(folder: Path | None) -> "Definitions":
    from watchbill.kinds.definition.loader import load_definitions

    return load_definitions(folder)


def _defined(definitions: "Definitions") -> "list[Definition]":
    from watchbill.kinds.objects.objects import GroupKind

    keys = [GroupKind(kind.group, kind.kind) for kind in definitions.watched() if kind.is_whole]
    candidates = [definitions.for_kind(key) for key in keys]
    return sorted(
        (definition for definition in candidates if definition is not None),
        key=lambda definition: definition.key.kind,
    )


def _shown_name(definition: "Definition", known: "list[Definition]") -> str:
    """The kind, with its group where two definitions are for kinds of that name."""
    kind = definition.key.kind
    is_only = sum(definition.key.kind == kind for definition in known) == 1
    return kind if is_only else f"{kind}.{definition.key.group}"


def _full_name(definition: "Definition") -> str:
    return f"{definition.key.kind}.{definition.key.group}".rstrip(".").lower()


def _derived(objects: "WorkloadObjects", definitions: "Definitions") -> "Derived":
    from uuid import UUID

    from watchbill.kinds.derive import derive
    from watchbill.kinds.objects.settings import DeriveSettings

    return derive(objects, definitions, DeriveSettings(cluster_id=UUID(int=0)))
