"""A service client of a running Muster: requests over one TLS connection, signed as the owner of the API asked.

For what tests need by the thousand: devices, enrollments, and the event log read to its end.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any, Self

from muster.domain.sas import create_token

HTTPS_PORT = 443

_HUB_VERSION = "api-version=2021-04-12"
_DPS_VERSION = "api-version=2021-10-01"
_TOKEN_SECONDS = 3600
_PAGE = 1000


class ServiceClient:
    """Signs with ``key``, which both owner policies have. ``trust`` is the server's CA in PEM."""

    def __init__(self, host: str, trust: str, key: str, port: int = HTTPS_PORT) -> None:
        context = ssl.create_default_context(cadata=trust)
        self._connection = http.client.HTTPSConnection(host, port, timeout=120, context=context)
        expiry = int(time.time()) + _TOKEN_SECONDS
        self._hub_token = create_token(host, key, expiry, "iothubowner")
        self._dps_token = create_token(host, key, expiry, "provisioningserviceowner")

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, url: str, token: str, body: object = None) -> tuple[Any, http.client.HTTPMessage]:
        """The JSON of a successful answer, and its headers; AssertionError for any other."""
        headers = {"Authorization": token, "Content-Type": "application/json"}
        self._connection.request(method, url, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        text = response.read()
        assert response.status < http.client.MULTIPLE_CHOICES, f"{method} {url}: {response.status} {text.decode()}"
        return json.loads(text) if text else None, response.headers

    def create_device(self, device_id: str, *, key: str | None = None, thumbprint: str | None = None) -> None:
        """A device that authenticates by the SHA-1 ``thumbprint`` of its certificate, or by ``key``."""
        if thumbprint is not None:
            x509 = {"primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint}
            authentication: dict[str, object] = {"type": "selfSigned", "x509Thumbprint": x509}
        else:
            authentication = {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
        body = {"deviceId": device_id, "authentication": authentication}
        self.request("PUT", f"/devices/{device_id}?{_HUB_VERSION}", self._hub_token, body)

    def device(self, device_id: str) -> dict[str, Any]:
        """The identity of a device."""
        found, _ = self.request("GET", f"/devices/{device_id}?{_HUB_VERSION}", self._hub_token)
        return dict(found)

    def enroll(self, registration_id: str, certificate_pem: str, *, enabled: bool = True) -> None:
        """An individual enrollment by X.509 certificate."""
        attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate_pem}}}}
        status = "enabled" if enabled else "disabled"
        body = {"registrationId": registration_id, "attestation": attestation, "provisioningStatus": status}
        self.request("PUT", f"/enrollments/{registration_id}?{_DPS_VERSION}", self._dps_token, body)

    def enroll_group(self, group_id: str, attestation: dict[str, Any]) -> None:
        """An enrollment group by any mechanism."""
        body = {"enrollmentGroupId": group_id, "attestation": attestation}
        self.request("PUT", f"/enrollmentGroups/{group_id}?{_DPS_VERSION}", self._dps_token, body)

    def exists(self, path: str, *, hub: bool = False) -> bool:
        """Whether GET of a path of the provisioning service, or of the hub, finds something; else it is 404."""
        version, token = (_HUB_VERSION, self._hub_token) if hub else (_DPS_VERSION, self._dps_token)
        self._connection.request("GET", f"{path}?{version}", headers={"Authorization": token})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status in (http.client.OK, http.client.NOT_FOUND), f"{path}: {response.status} {text.decode()}"
        return response.status == http.client.OK

    def reports(self, identifier: str) -> list[dict[str, Any]]:
        """The reports of a tracking id, a registration id or a device id."""
        found, _ = self.request("GET", f"/muster/v1/reports/{identifier}", self._hub_token)
        return list(found)

    def registration(self, registration_id: str) -> dict[str, Any]:
        """The registration state of a device."""
        found, _ = self.request("GET", f"/registrations/{registration_id}?{_DPS_VERSION}", self._dps_token)
        return dict(found)

    def events(self) -> Iterator[dict[str, Any]]:
        """All events that are in the log now, in the order of each partition."""
        query = "from=earliest"
        while True:
            page, headers = self.request("GET", f"/muster/v1/events?top={_PAGE}&{query}", self._hub_token)
            yield from page
            if not page:
                return
            query = f"continuation={headers['x-muster-continuation']}"
