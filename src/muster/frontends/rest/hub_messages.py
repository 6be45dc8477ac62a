"""Cloud-to-device messages for back ends over HTTPS: feedback on Azure's routes, send on one of Muster's own.

Azure sends by AMQP only; the route for it is in docs/api.md. Sources: hub-service.md 6.4, 6.6. Not here: what a device
asks (``hub_device.py``), and purging a queue (``hub_registry.py``).
"""

from collections.abc import Container
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.errors import ArgumentInvalidError, MisdirectedRequestError
from muster.domain.timestamp import iso_utc, parse_iso
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.message_headers import ExactName, feedback_headers
from muster.frontends.rest.requests import Guard
from muster.hub.c2d_messages import C2dMessages
from muster.hub.feedback import Feedback
from muster.hub.hubs import host_without_port

_CREATED = 201


class SendBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A message as Muster's own route takes it: the body as text, or as base64."""

    message_id: str = ""
    correlation_id: str = ""
    user_id: str = ""
    to: str = ""
    content_type: str = ""
    content_encoding: str = ""
    ack: str = ""
    expiry_time_utc: str | None = None
    properties: dict[str, str] = {}
    body: str | None = None
    body_base64: bytes | None = None

    def message(self) -> C2dMessage:
        """Raises ArgumentInvalidError."""
        if self.body is not None and self.body_base64 is not None:
            raise ArgumentInvalidError("Send body or bodyBase64, not both.")
        try:
            expiry = parse_iso(self.expiry_time_utc) if self.expiry_time_utc is not None else 0
        except ValueError as error:
            raise ArgumentInvalidError(f"expiryTimeUtc: {error}.") from None
        properties = C2dProperties(
            message_id=self.message_id,
            correlation_id=self.correlation_id,
            user_id=self.user_id,
            to=self.to,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            ack=self.ack,
            expiry=expiry,
            application=self.properties,
        )
        return C2dMessage(properties, self.body_base64 or (self.body or "").encode())


@dataclass(frozen=True, slots=True)
class HubMessagesApi:
    """The handlers; ``routes`` mounts them. ``host_names`` are those under which Muster's own routes are served."""

    gate: HubGate
    c2d: C2dMessages
    feedback: Feedback
    host_names: Container[str]

    def routes(self, guard: Guard) -> list[Route]:
        azure = {
            ("/messages/servicebound/feedback", "GET"): self.receive_feedback,
            ("/messages/servicebound/feedback/{token}", "DELETE"): self.complete_feedback,
            ("/messages/servicebound/feedback/{token}/abandon", "POST"): self.abandon_feedback,
        }
        own = {
            ("/muster/v1/c2d/{id}", "POST"): self.send,
            ("/muster/v1/c2d/{id}/{module}", "POST"): self.send,
        }
        return [
            *(
                Route(path, guard(handler, status.hub_body), methods=[method])
                for (path, method), handler in azure.items()
            ),
            *(
                Route(path, guard(handler, status.provisioning_body), methods=[method])
                for (path, method), handler in own.items()
            ),
        ]

    async def send(self, request: Request) -> Response:
        """201 when the message is on disk; what became of it is told by feedback."""
        if host_without_port(requests.host(request)) not in self.host_names:
            raise MisdirectedRequestError
        hub = await self.gate.authorize_own(request, Right.SERVICE_CONNECT)
        message = (await requests.read_record(request, SendBody)).message()
        sent = await self.c2d.send(hub.name, request.path_params["id"], request.path_params.get("module", ""), message)
        view = {
            "sequenceNumber": sent.sequence_number,
            "enqueuedTimeUtc": iso_utc(sent.enqueued_time),
            "expiryTimeUtc": iso_utc(sent.expiry),
        }
        response = requests.json_response(view)
        response.status_code = _CREATED
        return response

    async def receive_feedback(self, request: Request) -> Response:
        """The next batch under a lock, or 204."""
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        batch = await self.feedback.lock_next(hub.name)
        if batch is None:
            return requests.no_content()
        response = Response(batch.body)
        response.raw_headers += [
            *feedback_headers(batch),
            (ExactName(b"Content-Type"), batch.properties.content_type.encode()),
        ]
        return response

    async def complete_feedback(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        await self.feedback.complete(hub.name, requests.lock_token(request))
        return requests.no_content()

    async def abandon_feedback(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        await self.feedback.abandon(hub.name, requests.lock_token(request))
        return requests.no_content()
