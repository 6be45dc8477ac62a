"""The Event Hubs-compatible endpoint, read by the unmodified azure-eventhub, sync and aio, over TCP and WebSocket."""

from typing import Any

import pytest
from tests.support.event_senders import EventSenders, numbered
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.partition import partition_of

_WAIT_SECONDS = 170.0

TRANSPORTS = [
    pytest.param(aio, websockets, id=f"{'aio' if aio else 'sync'}-{'ws' if websockets else 'tcp'}")
    for aio in (False, True)
    for websockets in (False, True)
]


@pytest.fixture(scope="module")
def senders(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> EventSenders:
    return EventSenders(muster, https, clients("device.py"))


@pytest.fixture(scope="module")
def consumer(clients: OpenClient) -> SdkClient:
    return clients("event_hub.py")


@pytest.fixture(scope="module")
def string(muster: MusterServer) -> str:
    return muster.event_hub_connection_string


def of(found: dict[str, Any], device: str) -> list[dict[str, Any]]:
    return [event for event in found["events"] if event["systemProperties"]["iothub-connection-device-id"] == device]


def bodies(found: dict[str, Any], device: str) -> list[int]:
    return [int(event["body"]) for event in of(found, device)]


@pytest.mark.parametrize(("aio", "websockets"), TRANSPORTS)
def test_properties(consumer: SdkClient, senders: EventSenders, string: str, aio: bool, websockets: bool) -> None:
    senders.send("properties", {"body": "x"})
    found = consumer.call("properties", connection_string=string, aio=aio, websockets=websockets)
    assert found["ids"] == ["0", "1", "2", "3"]
    assert found["eventHub"]["eventhub_name"] == string.partition("EntityPath=")[2]
    assert found["eventHub"]["created_at"].startswith("20")
    partition = found["partitions"][partition_of("properties", 4)]
    assert partition["id"] == str(partition_of("properties", 4))
    assert partition["beginning_sequence_number"] == 0
    assert partition["last_enqueued_sequence_number"] >= 0
    assert partition["last_enqueued_offset"].isdigit()
    assert partition["last_enqueued_time_utc"].startswith("20")
    assert partition["is_empty"] is False


@pytest.mark.parametrize(("aio", "websockets"), TRANSPORTS)
def test_every_event_once_and_in_order_while_devices_send(
    consumer: SdkClient, senders: EventSenders, string: str, aio: bool, websockets: bool
) -> None:
    kind = f"live-{aio:d}{websockets:d}"
    names = [f"{kind}-{number}" for number in range(4)]
    for name in names:
        senders.send(name, *numbered(10))
    consumer.call("start", reader=kind, connection_string=string, aio=aio, websockets=websockets)
    sending = [senders.start(name, *numbered(300, 10)) for name in names]
    for future in sending:
        future.result(_WAIT_SECONDS)
    consumer.start("wait", reader=kind, counts=dict.fromkeys(names, 310)).result(_WAIT_SECONDS)
    found = consumer.call("close", reader=kind)
    for name in names:
        assert bodies(found, name) == list(range(310))
        assert {event["partition"] for event in of(found, name)} == {str(partition_of(name, 4))}
    for partition in "0123":
        numbers = [event["sequenceNumber"] for event in found["events"] if event["partition"] == partition]
        assert numbers == list(range(len(numbers)))
        offsets = [int(event["offset"]) for event in found["events"] if event["partition"] == partition]
        assert offsets == sorted(set(offsets))
    assert found["errors"] == []


def test_what_an_event_looks_like(consumer: SdkClient, senders: EventSenders, string: str) -> None:
    message = {
        "body": '{"t": 21}',
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "messageId": "m-1",
        "correlationId": "c-1",
        "properties": {"site": "A", "größe": "ü"},
    }
    partition = senders.send("looks", {"body": ""}, message)
    consumer.call("start", reader="looks", connection_string=string, receive={"partition_id": str(partition)})
    consumer.call("wait", reader="looks", counts={"looks": 2})
    found = consumer.call("close", reader="looks")
    plain, rich = of(found, "looks")
    assert (plain["body"], plain["contentType"], plain["messageId"], plain["properties"]) == ("", None, None, {})
    assert (rich["body"], rich["contentType"], rich["messageId"]) == ('{"t": 21}', "application/json", "m-1")
    assert (rich["correlationId"], rich["properties"]) == ("c-1", {"site": "A", "größe": "ü"})
    assert rich["contentEncoding"] == "utf-8"
    assert rich["partitionKey"] == "looks"
    system = rich["systemProperties"]
    assert system["iothub-message-source"] == "Telemetry"
    assert '"scope":"device","type":"sas"' in system["iothub-connection-auth-method"]
    assert system["iothub-connection-auth-generation-id"]
    assert isinstance(system["iothub-enqueuedtime"], int)
    assert isinstance(system["x-opt-sequence-number"], int)


class Positions:
    """Ten events of one device, and a reader from any position among them."""

    def __init__(self, consumer: SdkClient, senders: EventSenders, string: str) -> None:
        self._consumer = consumer
        self._string = string
        self._senders = senders
        self.partition = 0
        for number in range(10):
            self.partition = senders.send("positions", {"body": str(number)})
        self.events = self.read(10, "-1")

    def read(
        self, count: int, position: Any, *, inclusive: bool = False, is_time: bool = False
    ) -> list[dict[str, Any]]:
        receive = {"partition_id": str(self.partition), "starting_position_inclusive": inclusive}
        self._consumer.call(
            "start",
            reader="positions",
            connection_string=self._string,
            position=position,
            position_is_time=is_time,
            receive=receive,
        )
        try:
            self._consumer.call("wait", reader="positions", counts={"positions": count})
        finally:
            found = self._consumer.call("close", reader="positions")
        return of(found, "positions")


@pytest.fixture(scope="module")
def positions(consumer: SdkClient, senders: EventSenders, string: str) -> Positions:
    return Positions(consumer, senders, string)


@pytest.mark.parametrize("inclusive", [False, True])
def test_starting_positions(positions: Positions, inclusive: bool) -> None:
    fifth = positions.events[4]
    count = 6 if inclusive else 5
    wanted = [str(number) for number in range(10 - count, 10)]
    for position in (fifth["offset"], fifth["sequenceNumber"]):
        found = positions.read(count, position, inclusive=inclusive)
        assert [event["body"] for event in found] == wanted


def test_a_starting_time(positions: Positions) -> None:
    moments = [event["systemProperties"]["x-opt-enqueued-time"] for event in positions.events]
    middle = moments[4]
    inclusive = positions.read(sum(moment >= middle for moment in moments), middle / 1000, inclusive=True, is_time=True)
    assert [event["body"] for event in inclusive] == [str(i) for i in range(10) if moments[i] >= middle]
    after = positions.read(sum(moment > middle for moment in moments), middle / 1000, is_time=True)
    assert [event["body"] for event in after] == [str(i) for i in range(10) if moments[i] > middle]


def test_only_what_is_new(consumer: SdkClient, senders: EventSenders, string: str) -> None:
    partition = senders.send("latest", {"body": "1"})
    receive = {"partition_id": str(partition), "track_last_enqueued_event_properties": True}
    consumer.call("start", reader="latest", connection_string=string, position="@latest", receive=receive)
    number = 2
    while not consumer.call("some", reader="latest"):
        senders.send("latest", {"body": str(number)})
        number += 1
    senders.send("latest", {"body": "-1"})
    consumer.call("wait", reader="latest", last=["latest", "-1"])
    found = consumer.call("close", reader="latest")
    got = bodies(found, "latest")
    assert 1 not in got
    assert got == [*range(got[0], number), -1]
    last = found["events"][-1]
    assert found["last"]["sequence_number"] == last["sequenceNumber"]
    assert found["last"]["offset"] == last["offset"]
    assert found["last"]["enqueued_time"] == last["enqueuedTime"]


def test_a_consumer_group_in_any_case_and_one_that_is_not_there(
    consumer: SdkClient, senders: EventSenders, string: str
) -> None:
    partition = senders.send("grouped", {"body": "1"})
    receive = {"partition_id": str(partition)}
    consumer.call("start", reader="g", connection_string=string, group="$dEFAULT", receive=receive)
    consumer.call("wait", reader="g", counts={"grouped": 1})
    consumer.call("close", reader="g")
    # With retries this client tries for ever, and tells nobody.
    consumer.call("start", reader="n", connection_string=string, group="nobody", receive=receive, retry_total=0)
    errors = consumer.call("wait", reader="n", errors=1)
    consumer.call("close", reader="n")
    assert "could not be found" in errors[0]


def test_an_owner_level_takes_a_partition_and_keeps_it(consumer: SdkClient, senders: EventSenders, string: str) -> None:
    partition = senders.send("owned", {"body": "1"})

    def start(reader: str, level: int | None) -> None:
        receive = {"partition_id": str(partition)} | ({} if level is None else {"owner_level": level})
        consumer.call("start", reader=reader, connection_string=string, receive=receive)

    start("free", None)
    consumer.call("wait", reader="free", counts={"owned": 1})
    start("low", 1)
    consumer.call("wait", reader="low", counts={"owned": 1})
    displaced = consumer.call("wait", reader="free", errors=1)[0]
    start("high", 2)
    consumer.call("wait", reader="high", counts={"owned": 1})
    stolen = consumer.call("wait", reader="low", errors=1)[0]
    start("lower", 0)
    refused = consumer.call("wait", reader="lower", errors=1)[0]
    senders.send("owned", {"body": "2"})
    consumer.call("wait", reader="high", counts={"owned": 2})
    for reader in ("free", "low", "lower"):
        consumer.call("close", reader=reader)
    found = consumer.call("close", reader="high")
    assert bodies(found, "owned") == [1, 2]
    assert "New receiver 'nil' with higher epoch of '1' is created hence current receiver" in displaced
    assert "New receiver 'nil' with higher epoch of '2' is created hence current receiver" in stolen
    assert "Receiver 'nil' with epoch 0 cannot be created" in refused
    assert "link:stolen" in stolen
    assert found["errors"] == []


def test_what_is_refused(muster: MusterServer, consumer: SdkClient, string: str) -> None:
    with pytest.raises(SdkError, match="EventDataSendError"):
        consumer.call("send", connection_string=string)
    assert "'Send' claim(s) are required" in muster.output
    with pytest.raises(SdkError) as unknown:
        consumer.call("partition", number="99", connection_string=string)
    assert "The specified partition is invalid" in str(unknown.value)
    head, _, entity = string.partition("EntityPath=")
    with pytest.raises(SdkError) as missing:
        consumer.call("properties", connection_string=f"{head}EntityPath=other")
    assert "could not be found" in str(missing.value)
    wrong = string.replace(DEVELOPMENT_KEY, "AAAA" + DEVELOPMENT_KEY[4:])
    with pytest.raises(SdkError) as unauthorized:
        consumer.call("properties", connection_string=wrong)
    assert "nauthorized" in str(unauthorized.value) or "401" in str(unauthorized.value)
    with pytest.raises(SdkError):
        consumer.call("properties", connection_string=string.replace("=service;", "=device;"))
    assert entity
