"""The Event Hubs-compatible endpoint, read by unmodified clients for Node.js of two generations, and as by the CLI."""

import time
from typing import Any

import pytest
from tests.support.event_senders import EventSenders, numbered
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import MusterServer

from muster.domain.partition import partition_of

_WAIT_SECONDS = 170.0


@pytest.fixture(scope="module")
def senders(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> EventSenders:
    return EventSenders(muster, https, clients("device.py"))


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("event_hub.js")


def bodies(found: dict[str, Any], device: str) -> list[int]:
    return [int(event["body"]) for event in found["events"] if event["device"] == device]


def read(client: SdkClient, operation: str, senders: EventSenders, name: str, **options: Any) -> dict[str, Any]:
    """What a reader has got of four devices that sent before and send meanwhile."""
    names = [f"{name}-{number}" for number in range(4)]
    for each in names:
        senders.send(each, *numbered(10))
    client.start(operation, reader=name, **options).result(_WAIT_SECONDS)
    sending = [senders.start(each, *numbered(90, 10)) for each in names]
    for future in sending:
        future.result(_WAIT_SECONDS)
    client.start("wait", reader=name, counts=dict.fromkeys(names, 100)).result(_WAIT_SECONDS)
    found: dict[str, Any] = client.start("close", reader=name).result(_WAIT_SECONDS)
    for each in names:
        assert bodies(found, each) == list(range(100))
        partitions = {event["partition"] for event in found["events"] if event["device"] == each}
        assert partitions == {str(partition_of(each, 4))}
    assert found["errors"] == []
    return found


@pytest.mark.parametrize("websockets", [False, True])
def test_azure_event_hubs_for_node(
    muster: MusterServer, node: NodeClient, senders: EventSenders, websockets: bool
) -> None:
    string = muster.event_hub_connection_string
    name = f"node-{websockets:d}"
    found = read(node, "start", senders, name, connectionString=string, websockets=websockets)
    event = found["events"][-1]
    assert event["offset"].isdigit()
    assert event["systemProperties"]["iothub-message-source"] == "Telemetry"
    told = node.call("properties", connectionString=string, websockets=websockets)
    assert told["eventHub"]["partitionIds"] == ["0", "1", "2", "3"]
    assert told["eventHub"]["name"] == string.partition("EntityPath=")[2]
    partition = told["partitions"][int(event["partition"])]
    assert partition["lastEnqueuedSequenceNumber"] >= event["sequenceNumber"]
    assert partition["isEmpty"] is False


def test_positions_and_owner_levels_of_node(muster: MusterServer, node: NodeClient, senders: EventSenders) -> None:
    string = muster.event_hub_connection_string
    partition = str(senders.send("node-positions", *numbered(5)))
    options = {"connectionString": string, "partition": partition}
    node.call("start", reader="all", **options)
    node.call("wait", reader="all", counts={"node-positions": 5})
    events = [event for event in node.call("close", reader="all")["events"] if event["device"] == "node-positions"]
    third = events[2]
    for position in (
        {"sequenceNumber": third["sequenceNumber"]},
        {"offset": third["offset"]},
        {"sequenceNumber": third["sequenceNumber"] + 1, "isInclusive": True},
    ):
        node.call("start", reader="some", position=position, **options)
        node.call("wait", reader="some", counts={"node-positions": 2})
        assert bodies(node.call("close", reader="some"), "node-positions") == [3, 4]
    node.call("start", reader="low", ownerLevel=1, **options)
    node.call("wait", reader="low", counts={"node-positions": 5})
    node.call("start", reader="high", ownerLevel=2, **options)
    node.call("wait", reader="high", counts={"node-positions": 5})
    errors = node.call("wait", reader="low", errors=1)
    assert "with higher epoch of '2' is created" in errors[0]
    for reader in ("low", "high"):
        node.call("close", reader=reader)


@pytest.mark.parametrize("redirected", [False, True])
def test_the_older_azure_event_hubs(
    muster: MusterServer, node: NodeClient, senders: EventSenders, redirected: bool
) -> None:
    """By the event hub's connection string, and by the IoT hub's, from which it is redirected."""
    string = muster.hub_connection_string if redirected else muster.event_hub_connection_string
    read(node, "startOlder", senders, f"older-{redirected:d}", connectionString=string)
    told = node.call("olderProperties", connectionString=string)
    assert told["eventHub"]["partitionIds"] == ["0", "1", "2", "3"]
    assert [partition["partitionId"] for partition in told["partitions"]] == ["0", "1", "2", "3"]


def test_monitor_events_of_the_cli(muster: MusterServer, clients: OpenClient, senders: EventSenders) -> None:
    senders.send("monitored", {"body": "before"})
    time.sleep(0.01)  # the filter tells milliseconds apart
    since = int(time.time() * 1000)
    message = {"body": '{"t": 21}', "contentType": "application/json", "properties": {"site": "A"}}
    partition = senders.send("monitored", message, {"body": "last"})
    client = clients("monitor_events.py")
    found = client.start(
        "monitor", connection_string=muster.hub_connection_string, since=since, count=2, group="$default"
    ).result(_WAIT_SECONDS)
    entity = muster.event_hub_connection_string.partition("EntityPath=")[2]
    told = found["redirect"]
    assert (told["hostname"], told["path"], told["port"]) == (muster.address, entity, 5671)
    assert told["address"] == f"amqps://{muster.address}:5671/{entity}/$management"
    assert (found["partitionCount"], found["partitions"]) == (4, ["0", "1", "2", "3"])
    first, last = [event for event in found["events"] if event["origin"] == "monitored"]
    assert (first["body"], first["contentType"], first["application"]) == (
        '{"t": 21}',
        "application/json",
        {"site": "A"},
    )
    assert (last["body"], last["contentType"], last["application"]) == ("last", None, {})
    assert first["partition"] == str(partition)
    annotations = first["annotations"]
    assert isinstance(annotations["iothub-enqueuedtime"], int)
    assert annotations["x-opt-offset"].isdigit()
    assert annotations["iothub-message-source"] == "Telemetry"
