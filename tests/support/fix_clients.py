"""Programs that use the unmodified SDKs, driven request by request, and a plain HTTPS client of the same server.

A script of ``tests/conformance/clients`` runs in a process of its own, from the environment that has the SDKs, for
as long as a test module needs it. Its requests run at the same time: registering takes the SDK two seconds of
waiting, and many devices wait together.
"""

import http.client
import itertools
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pytest

from muster.domain.sas import create_token
from tests.support.fix_server import CLIENTS, SDK_PYTHON, MusterServer, clean_environment

_ANSWER_SECONDS = 180.0
_FAR = 4_000_000_000
"""An expiry of tokens, in seconds since 1970, that no test reaches."""


class SdkError(Exception):
    """What an SDK raised: the name of its type, its text, what it was raised from; and of an HTTP answer its status
    and body.
    """

    def __init__(self, kind: str, text: str, causes: Sequence[str], status: int = 0, body: str = "") -> None:
        super().__init__(f"{kind}: {text}" + "".join(f"\n  from {cause}" for cause in causes))
        self.kind = kind
        self.text = text
        self.causes = tuple(causes)
        self.status = status
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class SdkClient:
    """One running script. Use it as a context manager."""

    def __init__(self, server: MusterServer, script: str) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self.stderr: list[str] = []
        self._process = subprocess.Popen(
            self.command(script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=server.directory,
            env=clean_environment(MUSTER_HOST=server.address, **server.trust()),
        )
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def command(script: str) -> list[str]:
        """The program and its arguments. Raises AssertionError when its environment is missing."""
        if not SDK_PYTHON.exists():
            raise AssertionError(f"{SDK_PYTHON} is missing: run `make sdk`")
        return [str(SDK_PYTHON), "-W", "ignore", str(CLIENTS / script)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the script, whatever it does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_ANSWER_SECONDS)
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def start(self, operation: str, **arguments: Any) -> "Future[Any]":
        """Send a request; its future has the value, or raises SdkError."""
        number = next(self._numbers)
        future = self._waiting[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "operation": operation, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        return future

    def call(self, operation: str, **arguments: Any) -> Any:
        """Send a request and wait for its value. Raises SdkError."""
        return self.start(operation, **arguments).result(_ANSWER_SECONDS)

    def call_all(self, operation: str, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """All of these at once: for each its value or its SdkError."""
        futures = [self.start(operation, **arguments) for arguments in requests]
        return [future.exception(_ANSWER_SECONDS) or future.result() for future in futures]

    def values(self, operation: str, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """All of these at once: the value of each. Raises the first SdkError."""
        results = self.call_all(operation, requests)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            error = answer.get("error")
            if error is None:
                future.set_result(answer["value"])
            else:
                future.set_exception(SdkError(**error))
        for future in self._waiting.values():
            future.set_exception(AssertionError("the client ended:\n" + "".join(self.stderr)))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.stderr += self._process.stderr


@dataclass(frozen=True)
class HttpAnswer:
    """An answer; the names of its headers in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class HttpsClient:
    """Asks a server over HTTPS, trusting its CA and nothing else, with the owner's token unless told otherwise."""

    def __init__(self, server: MusterServer) -> None:
        self._server = server
        self._context = ssl.create_default_context(cafile=str(server.ca_file))

    def token(self, policy: str = "iothubowner", key: str | None = None) -> str:
        """A token of a policy; without ``key``, by the owner's key of that policy's service."""
        if key is None:
            provisioning = policy == "provisioningserviceowner"
            server = self._server
            own = server.provisioning_connection_string if provisioning else server.hub_connection_string
            key = own.partition("SharedAccessKey=")[2]
        return create_token(self._server.address, key, _FAR, policy)

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._server.address, context=self._context, timeout=60)

    def request(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        authorization: str | None = "",
        **headers: str,
    ) -> HttpAnswer:
        """Ask. ``authorization`` is ``""`` for the owner's token, None for none; a body is sent as JSON."""
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        if authorization is not None:
            provisioning = target.lower().startswith(("/enrollment", "/registrations"))
            own["Authorization"] = authorization or self.token(
                "provisioningserviceowner" if provisioning else "iothubowner"
            )
        connection = self.connection()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, target, content, own)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return HttpAnswer(response.status, response.reason, named, response.read())
        finally:
            connection.close()

    def events(self, device_id: str, number: int) -> list[dict[str, Any]]:
        """The events of a device, of which there must be ``number``, in their order."""
        found: list[dict[str, Any]] = []
        query = f"deviceId={device_id}&top=1000"
        while True:
            answer = self.request("GET", f"/muster/v1/events?{query}")
            assert answer.status == 200, answer
            found += answer.json
            following = f"deviceId={device_id}&top=1000&continuation={answer.headers['x-muster-continuation']}"
            if following == query:
                break
            query = following
        assert len(found) == number, found
        return found

    def wait_for_events(self, device_id: str, number: int) -> list[dict[str, Any]]:
        """The same for what nobody acknowledges, such as a last will: once there are any so many."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while len(self.request("GET", f"/muster/v1/events?deviceId={device_id}&top=1000").json) < number:
            assert time.monotonic() < deadline, f"{number} events of {device_id} did not come"
            time.sleep(0.05)
        return self.events(device_id, number)

    def create_device(self, device_id: str, **members: object) -> dict[str, Any]:
        """A device identity, with what the registry answers."""
        body = {"deviceId": device_id, **members}
        answer = self.request("PUT", f"/devices/{device_id}?api-version=2021-04-12", body)
        assert answer.status == 200, answer
        created: dict[str, Any] = answer.json
        return created

    def update_device(self, device_id: str, **members: object) -> None:
        """Replace what was created, whatever its tag."""
        body = {"deviceId": device_id, **members}
        answer = self.request("PUT", f"/devices/{device_id}?api-version=2021-04-12", body, if_match="*")
        assert answer.status == 200, answer

    def enroll(self, registration_id: str, certificate_pem: str, **members: object) -> None:
        """An individual enrollment by its primary certificate."""
        certificates = {"primary": {"certificate": certificate_pem}}
        attestation = {"type": "x509", "x509": {"clientCertificates": certificates}}
        self.enroll_by(registration_id, **{"attestation": attestation, **members})

    def enroll_by(self, registration_id: str, **members: object) -> dict[str, Any]:
        """An individual enrollment by any ``attestation``, as the service answers it."""
        body = {"registrationId": registration_id, **members}
        answer = self.request("PUT", f"/enrollments/{registration_id}?api-version=2021-10-01", body)
        assert answer.status == 200, answer
        created: dict[str, Any] = answer.json
        return created

    def enroll_group(self, group_id: str, **members: object) -> dict[str, Any]:
        """An enrollment group by any ``attestation``, as the service answers it."""
        body = {"enrollmentGroupId": group_id, **members}
        answer = self.request("PUT", f"/enrollmentGroups/{group_id}?api-version=2021-10-01", body)
        assert answer.status == 200, answer
        created: dict[str, Any] = answer.json
        return created

    def is_connected(self, device_id: str) -> bool:
        answer = self.request("GET", f"/devices/{device_id}?api-version=2021-04-12")
        return bool(answer.json["connectionState"] == "Connected")


OpenClient = Callable[[str], SdkClient]


@pytest.fixture(scope="module")
def clients(muster: MusterServer) -> Iterator[OpenClient]:
    """Starts a client script for the server of the module, or finds it running."""
    running: dict[str, SdkClient] = {}

    def find(script: str) -> SdkClient:
        if script not in running:
            running[script] = SdkClient(muster, script)
        return running[script]

    yield find
    for client in running.values():
        client.close()


@pytest.fixture(scope="module")
def https(muster: MusterServer) -> HttpsClient:
    return HttpsClient(muster)
