"""A watch's bytes: where chunks are cut changes nothing, and nothing unknown does harm."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.kubernetes.replay import exchange_with, recorded
from watchbill.agent.kubernetes import watch_stream
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.watch_stream import LineSplitter, read_event

EVENTS = tuple(
    line.rstrip("\n").encode()
    for line in exchange_with(
        recorded("1.36", "watch-basic"), "watch from the RV of the list"
    ).lines
    or ()
)


@given(st.data())
def test_events_are_the_same_however_the_stream_is_cut(data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in EVENTS)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=40)))
    splitter = LineSplitter()
    result = [
        line
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for line in splitter.feed(stream[start:end])
    ]
    assert result == list(EVENTS)


def test_every_byte_alone() -> None:
    splitter = LineSplitter()
    stream = EVENTS[0] + b"\n\n" + EVENTS[1] + b"\n"
    result = [line for byte in stream for line in splitter.feed(bytes([byte]))]
    assert result == [EVENTS[0], EVENTS[1]]


def test_a_line_without_an_end_is_no_line() -> None:
    assert LineSplitter().feed(EVENTS[0][:-1]) == []
    assert LineSplitter().feed(EVENTS[0]) == []


def test_a_line_beyond_any_object_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_stream, "LINE_BYTES", 100)
    splitter = LineSplitter()
    splitter.feed(b"x" * 60)
    with pytest.raises(ApiFailure) as caught:
        splitter.feed(b"x" * 60)
    assert caught.value.kind is ErrorKind.UNREACHABLE


def test_recorded_events_tell_type_uid_and_version() -> None:
    result = [read_event(line) for line in EVENTS]
    assert {event.type for event in result} == {"ADDED", "MODIFIED", "DELETED"}
    for event, line in zip(result, EVENTS, strict=True):
        answer = json.loads(line)["object"]["metadata"]
        assert (event.meta.uid, event.meta.resource_version) == (
            answer["uid"],
            answer["resourceVersion"],
        )


def test_bookmarks_carry_a_version_and_no_object() -> None:
    exchange = exchange_with(recorded("1.36", "watch-bookmarks"), "timeoutSeconds=130", "pod made")
    bookmarks = [
        event
        for event in map(read_event, (line.encode() for line in exchange.lines or ()))
        if event.type == "BOOKMARK"
    ]
    assert bookmarks
    assert all(event.meta.resource_version and not event.meta.uid for event in bookmarks)


@pytest.mark.parametrize("version", ["1.20", "1.36"])
def test_too_old_comes_as_an_event(version: str) -> None:
    seen = 0
    for exchange in recorded(version, "watch-too-old"):
        for line in exchange.lines or ():
            if '"type":"ERROR"' in line:
                with pytest.raises(ApiFailure) as caught:
                    read_event(line.encode())
                assert caught.value.kind is ErrorKind.EXPIRED
                seen += 1
    assert seen


def test_unknown_types_and_members_are_passed_over() -> None:
    known = json.loads(EVENTS[0])
    known["novelty"] = {"a": [1]}
    known["object"]["metadata"]["novelty"] = None
    assert read_event(json.dumps(known).encode()).meta == read_event(EVENTS[0]).meta
    event = read_event(b'{"type":"SHRUNK","object":"not even an object"}')
    assert not event.is_known


@pytest.mark.parametrize(
    "line", [b"{", b"null", b"[]", b'{"type":1}', b"\xff", b'{"type":"ADDED","object":[]}']
)
def test_a_garbled_line_is_a_broken_connection(line: bytes) -> None:
    with pytest.raises(ApiFailure) as caught:
        read_event(line)
    assert caught.value.kind is ErrorKind.UNREACHABLE
