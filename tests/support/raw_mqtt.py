"""MQTT over a TLS socket without any client in between: any bytes out, packets in."""

import socket
import ssl
import time
from typing import Self, TypeVar

from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import Packet
from tests.support.fix_server import MusterServer

_SECONDS = 60.0

P = TypeVar("P", bound=Packet)


class RawMqtt:
    """A TLS socket that sends any bytes and reads packets."""

    def __init__(
        self, server: MusterServer, port: int = 8883, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2, sni: bool = True
    ) -> None:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        context.minimum_version = context.maximum_version = version
        context.check_hostname = sni
        tcp = socket.create_connection((server.address, port), timeout=_SECONDS)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(tcp, server_hostname=server.address if sni else None)
        self._inbox: list[Packet] = []
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *packets: Packet | bytes) -> None:
        self.socket.sendall(b"".join(packet if isinstance(packet, bytes) else packet.encode() for packet in packets))

    def receive(self, kind: type[P]) -> P:
        """The next packet, which must be of this kind."""
        while not self._inbox:
            data = self.socket.recv(65536)
            assert data, "the server closed the connection"
            self._inbox += decode_all(data)
        packet = self._inbox.pop(0)
        assert isinstance(packet, kind), packet
        return packet

    def is_closed(self) -> float:
        """The server must close, orderly and without a word; the seconds until it did."""
        started = time.monotonic()
        assert not self._inbox
        assert self.socket.recv(65536) == b""
        return time.monotonic() - started
