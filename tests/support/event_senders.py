"""Devices that send by MQTT, for tests that read their events."""

from concurrent.futures import Future
from typing import Any

from muster.domain.partition import partition_of
from tests.support.fix_clients import HttpsClient, SdkClient
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

PARTITIONS = 4
_SECONDS = 60


class EventSenders:
    """Devices of the unmodified SDK, by their names; each is made when it first sends."""

    def __init__(self, server: MusterServer, https: HttpsClient, device: SdkClient) -> None:
        self._server = server
        self._https = https
        self._device = device
        self._known: set[str] = set()

    def send(self, name: str, *messages: dict[str, Any]) -> int:
        """Send, until all is acknowledged; returns the partition."""
        self.start(name, *messages).result(_SECONDS)
        return partition_of(name, PARTITIONS)

    def start(self, name: str, *messages: dict[str, Any]) -> "Future[Any]":
        """Begin to send."""
        if name not in self._known:
            keys = {"primaryKey": DEVELOPMENT_KEY, "secondaryKey": DEVELOPMENT_KEY}
            self._https.create_device(name, authentication={"type": "sas", "symmetricKey": keys})
            string = f"HostName={self._server.address};DeviceId={name};SharedAccessKey={DEVELOPMENT_KEY}"
            self._device.call("connect", connection=name, connection_string=string)
            self._known.add(name)
        return self._device.start("send", connection=name, messages=list(messages))


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    """So many messages; their bodies are numbers."""
    return [{"body": str(number)} for number in range(first, first + count)]
