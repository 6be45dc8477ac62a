"""``kill -9`` while messages for devices are sent and completed: what was acknowledged counts, once."""

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.support.fix_clients import HttpsClient
from tests.support.fix_node import NodeClient
from tests.support.fix_server import MusterServer, StartServer

DEVICES = ("kill-1", "kill-2", "kill-3")
VERSION = "api-version=2021-04-12"
_LOAD_SECONDS = 1.5
_FEEDBACK_SECONDS = 120.0


class Load:
    """A back end that sends and devices that complete, each on its own, until the server is gone."""

    def __init__(self, https: HttpsClient) -> None:
        self.https = https
        self.sent: list[str] = []
        self.begun: set[str] = set()
        self.completed: list[str] = []
        self.unsure: set[str] = set()
        self._threads = [
            threading.Thread(target=self._until_gone, args=(work, device_id))
            for device_id in DEVICES
            for work in (self._send, self._complete)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _until_gone(work: Callable[[str, int], None], device_id: str) -> None:
        try:
            for number in itertools.count():
                work(device_id, number)
        except (OSError, http.client.HTTPException):
            pass

    def _send(self, device_id: str, number: int) -> None:
        name = f"{device_id} {number}"
        self.begun.add(name)
        answer = self.https.request("POST", f"/muster/v1/c2d/{device_id}", {"messageId": name, "ack": "full"})
        if answer.status == 201:
            self.sent.append(name)
        else:
            assert answer.status == 403, answer  # 50 wait
            self.begun.remove(name)

    def _complete(self, device_id: str, _number: int) -> None:
        inbox = f"/devices/{device_id}/messages/devicebound"
        answer = self.https.request("GET", f"{inbox}?{VERSION}")
        if answer.status == 200:
            name = answer.headers["iothub-messageid"]
            self.unsure.add(name)
            token = answer.headers["etag"].strip('"')
            assert self.https.request("DELETE", f"{inbox}/{token}?{VERSION}").status == 204
            self.unsure.remove(name)
            self.completed.append(name)


def outcomes(https: HttpsClient, names: Sequence[str]) -> list[tuple[str, str]]:
    """The feedback until there is some on every message of ``names``."""
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + _FEEDBACK_SECONDS
    while missing := set(names) - {name for name, _ in found}:
        assert time.monotonic() < deadline, f"nothing was reported of {missing}"
        answer = https.request("GET", f"/messages/serviceBound/feedback?{VERSION}")
        if answer.status == 204:
            time.sleep(0.5)
            continue
        found += [(record["originalMessageId"], record["statusCode"]) for record in answer.json]
        token = answer.headers["etag"].strip('"')
        assert https.request("DELETE", f"/messages/serviceBound/feedback/{token}?{VERSION}").status == 204
    return found


def test_what_was_acknowledged_counts_once(start_server: StartServer) -> None:
    server: MusterServer = start_server()
    https = HttpsClient(server)
    for device_id in DEVICES:
        https.create_device(device_id)
    load = Load(https)
    load.start()
    deadline = time.monotonic() + _FEEDBACK_SECONDS
    time.sleep(_LOAD_SECONDS)
    while len(load.sent) <= len(DEVICES) or not load.completed:
        assert time.monotonic() < deadline, "the server is far too slow"
        time.sleep(0.05)
    server.kill()
    load.join()
    server.start()
    for device_id in DEVICES:
        assert https.request("DELETE", f"/devices/{device_id}/commands?{VERSION}").status == 200
    reported = outcomes(https, load.sent)
    assert set(Counter(name for name, _ in reported).values()) == {1}
    names = {name for name, _ in reported}
    assert set(load.sent) <= names <= load.begun
    succeeded = {name for name, outcome in reported if outcome == "Success"}
    assert set(load.completed) <= succeeded <= set(load.completed) | load.unsure


def test_what_was_accepted_over_amqp_is_there(start_server: StartServer) -> None:
    server: MusterServer = start_server()
    https = HttpsClient(server)
    devices = [f"flood-{number}" for number in range(50)]
    for device_id in devices:
        https.create_device(device_id)
    with NodeClient(server, "amqp_peer.js") as peer:
        place = {"host": server.address, "audience": server.address, "token": https.token()}
        peer.call("flood", devices=devices, count=40, **place)
        deadline = time.monotonic() + _FEEDBACK_SECONDS
        while sum(peer.call("soFar").values()) < len(devices):
            assert time.monotonic() < deadline, "too little was accepted"
        server.kill()
        accepted = peer.call("flooded")
    server.start()
    found = {
        device_id: https.request("DELETE", f"/devices/{device_id}/commands?{VERSION}").json["totalMessagesPurged"]
        for device_id in devices
    }
    assert [device_id for device_id in devices if not accepted[device_id] <= found[device_id] <= 40] == []
