"""Lists: label and field selectors, paging over one revision, resourceVersion rules, as the Kubernetes API
has them.

Options in, one encoded list out.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.apiserver import errors
from simulator.apiserver.encoding import object_bytes, partial_bytes
from simulator.apiserver.faults import AnswerVariation
from simulator.apiserver.store import Expired, ResourceTable, Store, StoredObject, TableView
from simulator.resources import ResourceType

Test = Callable[[Mapping[str, Any]], bool]


class BadSelector(Exception):
    """A selector that the API would refuse; the text is the answer's message."""


_REQUIREMENT = re.compile(
    r"\s*(?P<absent>!\s*)?(?P<key>[A-Za-z0-9][A-Za-z0-9_./-]*)\s*"
    r"(?:(?P<operator>==|=|!=|>|<|\bnotin\b|\bin\b)\s*"
    r"(?:\((?P<values>[^()]*)\)|(?P<value>[^,()]*)))?\s*"
)
_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    ("", "events"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "reason",
        "reportingComponent",
        "type",
    ),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "secrets"): ("type",),
    ("apps", "replicasets"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
}
"""Fields that can be selected beside metadata.name and metadata.namespace."""


class Selector:
    """The conjunction of a label and a field selector."""

    __slots__ = ("_tests",)

    def __init__(self, tests: Iterable[Test]) -> None:
        self._tests = tuple(tests)

    def __bool__(self) -> bool:
        return bool(self._tests)

    def matches(self, stored: StoredObject) -> bool:
        if not self._tests:
            return True
        document = stored.decode()
        return all(test(document) for test in self._tests)


def parse(resource: ResourceType, *, labels: str, fields: str) -> Selector:
    """Raises BadSelector."""
    return Selector([*_label_tests(labels), *_field_tests(resource, fields)])


def _label_tests(text: str) -> list[Test]:
    tests: list[Test] = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            token = text[match.end() if match else position :].split(" ")[0]
            raise BadSelector(
                f"unable to parse requirement: found '{token}', "
                "expected: in, notin, =, ==, !=, gt, lt"
            )
        tests.append(_label_test(match))
        position = match.end() + 1
    return tests


def _label_test(match: re.Match[str]) -> Test:
    key = match["key"]
    operator = match["operator"]
    if match["absent"]:
        return lambda document: key not in _labels(document)
    if operator is None:
        return lambda document: key in _labels(document)
    if operator in ("in", "notin"):
        values = {value.strip() for value in (match["values"] or "").split(",")}
    else:
        values = {(match["value"] or "").strip()}
    if operator in ("!=", "notin"):
        return lambda document: _labels(document).get(key) not in values
    return lambda document: _labels(document).get(key) in values


def _field_tests(resource: ResourceType, text: str) -> list[Test]:
    allowed = {"metadata.name", *_FIELDS.get((resource.group, resource.plural), ())}
    if resource.is_namespaced:
        allowed.add("metadata.namespace")
    tests: list[Test] = []
    for requirement in filter(None, text.split(",")):
        match = re.fullmatch(r"(.*?)(==|!=|=)(.*)", requirement)
        if match is None:
            raise BadSelector(f"invalid selector: '{text}'; can't understand '{requirement}'")
        field, operator, value = match.groups()
        if field not in allowed:
            raise BadSelector(f"field label not supported: {field}")
        tests.append(_field_test(field, value, is_wanted=operator != "!="))
    return tests


def _field_test(field: str, value: str, *, is_wanted: bool) -> Test:
    steps = field.split(".")

    def test(document: Mapping[str, Any]) -> bool:
        member: Any = document
        for step in steps:
            member = member.get(step) if isinstance(member, Mapping) else None
        text = str(member).lower() if isinstance(member, bool) else str(member or "")
        return (text == value) == is_wanted

    return test


def _labels(document: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = document["metadata"].get("labels") or {}
    return labels


_CONTINUE_VERSION = "meta.k8s.io/v1"
_MATCHES = ("", "Exact", "NotOlderThan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The query parameters of a list or watch; unknown ones are ignored."""

    limit: int
    token: str
    revision_text: str
    match: str
    labels: str
    fields: str
    is_watch: bool
    timeout_seconds: float | None
    has_bookmarks: bool
    sends_initial_events: bool | None

    @property
    def revision(self) -> int | None:
        """Raises ValueError."""
        if not self.revision_text:
            return None
        if not self.revision_text.isascii() or not self.revision_text.isdigit():
            raise ValueError(
                f'Invalid value: "{self.revision_text}": '
                f'strconv.ParseUint: parsing "{self.revision_text}": invalid syntax'
            )
        return int(self.revision_text)


def read_options(query: Mapping[str, str]) -> Options:
    """Raises ApiError."""
    initial = query.get("sendInitialEvents")
    timeout = query.get("timeoutSeconds", "")
    return Options(
        limit=_integer(query.get("limit", "")),
        token=query.get("continue", ""),
        revision_text=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        is_watch=_flag(query.get("watch")),
        timeout_seconds=_integer(timeout) if timeout else None,
        has_bookmarks=_flag(query.get("allowWatchBookmarks")),
        sends_initial_events=None if initial is None else _flag(initial),
    )


def read_selector(table: ResourceTable, options: Options) -> Selector:
    """Raises ApiError."""
    try:
        return parse(table.resource, labels=options.labels, fields=options.fields)
    except BadSelector as error:
        raise errors.api_error(400, str(error), "BadRequest") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """Which list of which kind, in which form."""

    table: ResourceTable
    version: str
    namespace: str | None
    options: Options
    is_partial: bool
    counts_partial: bool = True
    """Old servers give no remainingItemCount for PartialObjectMetadataList."""

    @property
    def prefix(self) -> str:
        return f"{self.namespace}/" if self.namespace else ""


def answer_list(
    store: Store, request: ListRequest, *, page_break: bool, variation: AnswerVariation
) -> bytes:
    """The encoded list. Raises ApiError."""
    selector = read_selector(request.table, request.options)
    revision, start, view = _position(store, request, page_break=page_break)
    matches = view.between(request.prefix, start)
    if selector:
        matches = [stored for stored in matches if selector.matches(stored)]
    page, metadata = _page(request, matches, revision, has_selector=bool(selector))
    return _encode(request, page, metadata, variation)


def _position(
    store: Store, request: ListRequest, *, page_break: bool
) -> tuple[int, str, TableView]:
    """At which revision, from which key, over what."""
    options, table = request.options, request.table
    if options.token:
        if options.revision_text not in ("", "0"):
            message = "specifying resource version is not allowed when using continue"
            raise errors.api_error(400, message, "BadRequest")
        revision, start = _read_token(options.token)
        start = request.prefix + start
        if revision < 0:
            return store.revision, start, table.view()
        try:
            if page_break or revision < store.compacted:
                raise Expired
            return revision, start, table.view_at(revision)
        except Expired:
            rest = start.removeprefix(request.prefix)
            raise errors.expired_continue(_write_token(-1, rest, slash="")) from None
    exact = _exact_revision(store, options)
    if exact is None:
        return store.revision, "", table.view()
    try:
        if exact < store.compacted:
            raise Expired
        return exact, "", table.view_at(exact)
    except Expired:
        raise errors.expired_list() from None


def _exact_revision(store: Store, options: Options) -> int | None:
    """The one revision that the list has to show; None = the present."""
    _check_match(options)
    revision = known_revision(store, options)
    is_exact = options.match == "Exact" or (not options.match and options.limit > 0)
    return revision if revision and is_exact else None


def known_revision(store: Store, options: Options) -> int | None:
    """The revision that a read names. Raises ApiError for one that is none or is yet to come."""
    try:
        revision = options.revision
    except ValueError as error:
        message = f"invalid resource version: resourceVersion: {error}"
        raise errors.api_error(400, message, "BadRequest") from error
    if revision is not None and revision > store.revision:
        raise errors.ApiError(
            504, errors.future_revision(revision, store.revision) + b"\n", retry_after=1
        )
    return revision


def _check_match(options: Options) -> None:
    match, revision = options.match, options.revision_text
    if match not in _MATCHES:
        supported = ", ".join(f'"{name}"' for name in ("Exact", "NotOlderThan", ""))
        message = f'Unsupported value: "{match}": supported values: {supported}'
        raise errors.invalid_options(message, "FieldValueNotSupported")
    if match and not revision:
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise errors.invalid_options(message)
    if match == "Exact" and revision == "0":
        message = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise errors.invalid_options(message)


def _page(
    request: ListRequest, matches: list[StoredObject], revision: int, *, has_selector: bool
) -> tuple[list[StoredObject], dict[str, bytes]]:
    metadata = {"resourceVersion": b'"%d"' % revision}
    if request.table.resource.is_custom and not request.is_partial:
        metadata["continue"] = b'""'
    limit = request.options.limit
    is_limited = limit > 0 and request.options.revision_text != "0"
    if not is_limited or len(matches) <= limit:
        return matches, metadata
    page = matches[:limit]
    last = page[-1].path.removeprefix(request.prefix)
    metadata["continue"] = b'"%b"' % _write_token(revision, last + "\0").encode()
    if not has_selector and (request.counts_partial or not request.is_partial):
        metadata["remainingItemCount"] = b"%d" % (len(matches) - limit)
    return page, metadata


def _encode(
    request: ListRequest,
    page: list[StoredObject],
    metadata: dict[str, bytes],
    variation: AnswerVariation,
) -> bytes:
    resource = request.table.resource
    api_version = resource.api_version_of(request.version)
    if request.is_partial:
        items = b",".join(map(partial_bytes, page))
        kind, list_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
    else:
        layout = variation.layout()
        item_kind = resource.kind if resource.is_custom else ""
        items = b",".join(
            object_bytes(stored, layout, kind=item_kind, api_version=api_version) for stored in page
        )
        kind, list_version = f"{resource.kind}List", api_version
    return (
        variation.members(
            ("kind", b'"%b"' % kind.encode()),
            ("apiVersion", b'"%b"' % list_version.encode()),
            ("metadata", variation.members(*metadata.items())),
            ("items", b"[%b]" % items),
        )
        + b"\n"
    )


def _write_token(revision: int, start: str, *, slash: str = "/") -> str:
    token = msgspec.json.encode({"v": _CONTINUE_VERSION, "rv": revision, "start": slash + start})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _read_token(token: str) -> tuple[int, str]:
    """Revision (-1 = the present) and the first key behind the page before."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        content = msgspec.json.decode(raw)
        if content["v"] != _CONTINUE_VERSION:
            raise ValueError(content["v"])
        return int(content["rv"]), str(content["start"]).removeprefix("/")
    except (ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        message = f"invalid continue token: continue key is not valid: {error}"
        raise errors.api_error(400, message, "BadRequest") from error


def _integer(text: str) -> int:
    try:
        return int(text) if text else 0
    except ValueError as error:
        message = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise errors.api_error(400, message, "BadRequest") from error


def _flag(text: str | None) -> bool:
    """A flag that is present counts as set, unless it says otherwise."""
    return text is not None and text.lower() not in ("0", "false")
