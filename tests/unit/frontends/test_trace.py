import io
import json
import logging
import stat
from types import SimpleNamespace

import pytest

from muster.frontends.trace import TracedConnection, Tracer, TraceRecord, load_trace
from muster.wire.mqtt_packets import Connack, Connect, Pingreq

START = 1_700_000_000_000_000


class Clock:
    """Each look at it is a microsecond later."""

    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += 1
        return self.now


def test_a_trace_in_the_words_of_its_format():
    file = io.BytesIO()
    tracer = Tracer(file, Clock())
    tap = tracer.open("127.0.0.1:1 -> 127.0.0.1:8883 TLSv1.3")
    tap.received(b"\xc0\x00")
    tap.sent(b"\xd0\x00")
    tap.closed()
    lines = file.getvalue().splitlines()
    assert lines == [
        b'{"connection":1,"time":%d,"peer":"127.0.0.1:1 -> 127.0.0.1:8883 TLSv1.3"}' % (START + 1),
        b'{"connection":1,"time":%d,"direction":"received","data":"wAA="}' % (START + 2),
        b'{"connection":1,"time":%d,"direction":"sent","data":"0AA="}' % (START + 3),
        b'{"connection":1,"time":%d,"closed":true}' % (START + 4),
    ]
    assert all(json.loads(line) for line in lines)


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, Clock())
    one = tracer.open("one")
    two = tracer.open("two")
    two.received(b"GET")
    one.received(b"\x10")
    two.sent(b"HTTP")
    two.closed()
    tracer.close()
    assert load_trace(str(path)) == [
        TracedConnection(1, "one", START + 1, [TraceRecord(START + 4, "received", b"\x10")]),
        TracedConnection(
            2,
            "two",
            START + 2,
            [TraceRecord(START + 3, "received", b"GET"), TraceRecord(START + 5, "sent", b"HTTP")],
            START + 6,
        ),
    ]


def test_credentials_are_masked_in_both_directions_and_apart_for_each_connection(tmp_path):
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, Clock())
    taps = [tracer.open("one"), tracer.open("two")]
    connect = Connect("d", username="u", password=b"SECRET").encode()
    for tap in taps:  # piece after piece, in turn
        tap.received(connect[:-3])
    for tap in taps:
        tap.received(connect[-3:])
        tap.sent(Connack().encode() + b"\x30\x0d\x00\x01tsig=SECRET")
    tracer.close()
    for connection in load_trace(path):
        received = b"".join(record.data for record in connection.records if record.direction == "received")
        sent = b"".join(record.data for record in connection.records if record.direction == "sent")
        assert received == connect.replace(b"SECRET", b"******")
        assert sent.endswith(b"sig=******")


def test_each_piece_is_in_the_file_at_once(tmp_path):
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, Clock())
    tap = tracer.open("one")
    tap.received(Connect("d", username="u", password=b"SECRET").encode()[:14])
    assert len(load_trace(path)[0].records) == 1
    tracer.close()


@pytest.mark.parametrize("before", [None, 0o644])
def test_only_the_owner_can_read_the_file(tmp_path, before):
    path = tmp_path / "trace.jsonl"
    if before is not None:
        path.write_text("an older trace\n")
        path.chmod(before)
    tracer = Tracer(str(path), Clock())
    tracer.open("one")
    tracer.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [connection.peer for connection in load_trace(path)] == ["one"]


def test_what_is_no_file_keeps_its_mode():
    tracer = Tracer("/dev/null", Clock())
    tracer.open("one")
    tracer.close()


def test_a_file_that_cannot_be_created(tmp_path):
    with pytest.raises(OSError):
        Tracer(tmp_path / "missing" / "trace.jsonl", Clock())


class FullDisk(io.BytesIO):
    def write(self, data):  # noqa: ARG002 - a disk is full whatever is written
        raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_trace_and_nothing_else(caplog):
    file = FullDisk()
    tracer = Tracer(file, Clock())
    with caplog.at_level(logging.WARNING, "muster.trace"):
        tap = tracer.open("one")
        tap.received(b"\xc0\x00")
        tap.closed()
    assert [record.getMessage() for record in caplog.records] == [
        "the trace ends here: [Errno 28] No space left on device"
    ]


def test_a_closed_trace_records_nothing_and_leaves_a_foreign_file_open():
    file = io.BytesIO()
    tracer = Tracer(file, Clock())
    tap = tracer.open("one")
    written = file.getvalue()
    tracer.close()
    tracer.close()
    tap.received(b"\xc0\x00")
    tap.closed()
    assert file.getvalue() == written


def test_empty_pieces_are_not_recorded():
    file = io.BytesIO()
    tap = Tracer(file, Clock()).open("one")
    written = file.getvalue()
    tap.received(b"")
    tap.sent(b"")
    assert file.getvalue() == written


@pytest.mark.parametrize(
    "tls_version, server_name, described",
    [
        ("TLSv1.3", "hub.local", "127.0.0.1:50312 -> ::1:8883 TLSv1.3 server name hub.local"),
        ("TLSv1.2", None, "127.0.0.1:50312 -> ::1:8883 TLSv1.2"),
        (None, None, "127.0.0.1:50312 -> ::1:8883 without TLS"),
    ],
)
def test_a_peer_of_a_listener(tls_version, server_name, described):
    file = io.BytesIO()
    peer = SimpleNamespace(
        remote=("127.0.0.1", 50312), local=("::1", 8883), tls_version=tls_version, server_name=server_name
    )
    Tracer(file, Clock()).tap(peer).received(Pingreq().encode())
    assert json.loads(file.getvalue().splitlines()[0])["peer"] == described


@pytest.mark.parametrize(
    "line, fault",
    [
        ("no json", "line 2: JSON is malformed"),
        ('{"connection":1}', "line 2: Object missing required field `time`"),
        ('{"connection":1,"time":1,"direction":"up"}', "line 2: Invalid enum value 'up'"),
        ('{"connection":1,"time":1,"direction":"sent","data":"?"}', "line 2: Invalid base64"),
        ('{"connection":1,"time":1,"more":1}', "line 2: Object contains unknown field"),
        ('{"connection":2,"time":1,"closed":true}', "line 2: connection 2 has no start"),
    ],
)
def test_a_line_that_is_no_trace(tmp_path, line, fault):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"connection":1,"time":1,"peer":"one"}\n' + line + "\n")
    with pytest.raises(ValueError, match=fault):
        load_trace(path)


@pytest.mark.parametrize("unfinished", ["{", '{"connection":1,"time":2,"closed":true}'])
def test_a_last_line_that_is_being_written_does_not_count_yet(tmp_path, unfinished):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"connection":1,"time":1,"peer":"one"}\n' + unfinished)
    assert load_trace(path) == [TracedConnection(1, "one", 1, [])]
