"""``muster c2d``: cloud-to-device messages, as the back end that sends them and as the device that receives them.

Sending is AMQP, as in Azure, which has nothing else for it (hub-service.md 6.1); the rest is HTTPS. Receiving is the
hub's HTTPS device API under a policy with DeviceConnect (hub-device.md 10.3): no key of the device is needed, and what
is received is gone for the device.
"""

import os
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.client import Answer, Client
    from muster.domain.c2d_message import C2dProperties

app = typer.Typer(
    help="Send messages to devices, receive them, and read the feedback.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Document = dict[str, Any]

_DEVICEBOUND = "/messages/devicebound"
_APPLICATION = "iothub-app-"
_POLL_SECONDS = 1.0
_NO_CONTENT = 204

# What a header says of a message, under the name that ``send`` has for it.
_FACTS = {
    "iothub-messageid": "messageId",
    "iothub-correlationid": "correlationId",
    "iothub-userid": "userId",
    "iothub-to": "to",
    "iothub-contenttype": "contentType",
    "iothub-contentencoding": "contentEncoding",
    "iothub-ack": "ack",
    "iothub-expiry": "expiry",
    "iothub-enqueuedtime": "enqueuedTime",
    "iothub-deliverycount": "deliveryCount",
    "iothub-sequencenumber": "sequenceNumber",
}


class Ack(StrEnum):
    """The choices of ``--ack`` (hub-device.md 5.3)."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    FULL = "full"


class Then(StrEnum):
    """The choices of ``--then``."""

    COMPLETE = "complete"
    REJECT = "reject"
    ABANDON = "abandon"
    KEEP = "keep"


DeviceId = Annotated[str, typer.Argument(help="Device id.", show_default=False)]
ModuleId = Annotated[str | None, typer.Option("--module", help="A module of the device.", show_default=False)]


@app.command()
def send(
    device_id: DeviceId,
    body: Annotated[str, typer.Argument(help="What to send, as text.", show_default=False)] = "",
    *,
    file: Annotated[Path | None, typer.Option(help="Send the content of this file.", show_default=False)] = None,
    application: Annotated[
        list[str] | None,
        typer.Option("--property", help="NAME=VALUE, an application property; any number.", show_default=False),
    ] = None,
    message_id: Annotated[
        str, typer.Option(help="Its id, which feedback names; else one is made.", show_default=False)
    ] = "",
    correlation_id: Annotated[str, typer.Option(help="What it answers.", show_default=False)] = "",
    content_type: Annotated[str, typer.Option(help="Such as application/json.", show_default=False)] = "",
    content_encoding: Annotated[str, typer.Option(help="Such as utf-8.", show_default=False)] = "",
    ack: Annotated[Ack, typer.Option(help="Which outcomes to report as feedback.")] = Ack.NONE,
    expires: Annotated[
        str | None,
        typer.Option(help="ISO 8601 time after which it is given up; else the hub's default.", show_default=False),
    ] = None,
    module_id: ModuleId = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Send a message to a device, which gets it now or when it asks."""
    from uuid import UUID

    from muster.cli.amqp import AmqpSender
    from muster.domain.c2d_message import C2dProperties, c2d_address
    from muster.domain.timestamp import iso_utc

    properties = C2dProperties(
        message_id=message_id or str(UUID(bytes=os.urandom(16), version=4)),
        correlation_id=correlation_id,
        to=c2d_address(device_id, module_id or ""),
        content_type=content_type,
        content_encoding=content_encoding,
        ack=ack.value,
        expiry=read_expiry(expires),
        application=read_properties(application or []),
    )
    payload = encode_payload(properties, read_content(body, file))
    client = connect(connection_string, data_directory)
    with AmqpSender(client, client.target.hub) as sender:
        sender.authorize()
        sender.send(_DEVICEBOUND, payload)
    if output is Format.JSON:
        expiry = iso_utc(properties.expiry) if properties.expiry else None
        print_json({"messageId": properties.message_id, "to": properties.to, "expiryTimeUtc": expiry})
    else:
        print(f"queued message {printable(properties.message_id)} for {printable(device_id)}")


@app.command()
def receive(
    device_id: DeviceId,
    *,
    then: Annotated[Then, typer.Option(help="What to do with it.")] = Then.COMPLETE,
    lock_timeout: Annotated[int, typer.Option(help="Seconds for which nobody else gets it.", min=1, max=300)] = 60,
    module_id: ModuleId = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Receive the next message of a device, in its place."""
    from muster.cli.client import HUB_API_VERSION, path

    client = connect(connection_string, data_directory)
    inbox = [*_identity(device_id, module_id), "messages", "devicebound"]
    query: dict[str, str | int | None] = {"api-version": HUB_API_VERSION}
    headers = {"iothub-messagelocktimeout": str(lock_timeout)}
    answer = client.request(client.target.hub, "GET", path(*inbox), query=query, headers=headers)
    if answer.status == _NO_CONTENT:
        raise CommandError(f"no message waits for {printable(device_id)}", "send one: muster c2d send")
    message = message_document(answer.headers, answer.content)
    token = message["lockToken"]
    if then is Then.ABANDON:
        client.request(client.target.hub, "POST", path(*inbox, token, "abandon"), query=query)
    elif then is not Then.KEEP:
        settling = {**query, "reject": "true"} if then is Then.REJECT else query
        client.request(client.target.hub, "DELETE", path(*inbox, token), query=settling)
    _show(message, output)


@app.command()
def purge(
    device_id: DeviceId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Remove all messages that wait for a device."""
    from muster.cli.client import HUB_API_VERSION, path

    client = connect(connection_string, data_directory)
    location = path("devices", device_id, "commands")
    purged = client.request(client.target.hub, "DELETE", location, query={"api-version": HUB_API_VERSION}).document
    if output is Format.JSON:
        print_json(purged)
    else:
        print(f"purged {purged['totalMessagesPurged']} messages of {printable(device_id)}")


@app.command()
def feedback(
    *,
    wait: Annotated[int, typer.Option(help="Wait up to so many seconds for the first batch.", min=0)] = 0,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Read the feedback that waits, all batches; what is printed is gone."""
    records = list(_batches(connect(connection_string, data_directory), time.monotonic() + wait))
    if output is Format.JSON:
        print_json(records)
        return
    headings = ("Time", "DeviceId", "Status", "MessageId")
    members = ("enqueuedTimeUtc", "deviceId", "statusCode", "originalMessageId")
    print(table_text(headings, ([record.get(member) for member in members] for record in records)))


def _batches(client: "Client", deadline: float) -> Iterator[Document]:
    from muster.cli.client import HUB_API_VERSION, path

    query: dict[str, str | int | None] = {"api-version": HUB_API_VERSION}
    place = ("messages", "serviceBound", "feedback")
    found = False
    while True:
        answer: Answer = client.request(client.target.hub, "GET", path(*place), query=query)
        if answer.status != _NO_CONTENT:
            found = True
            yield from answer.document
            client.request(client.target.hub, "DELETE", path(*place, _token(answer.headers)), query=query)
        elif found or time.monotonic() >= deadline:
            return
        else:
            time.sleep(_POLL_SECONDS)


def read_properties(texts: list[str]) -> dict[str, str]:
    """The properties of ``--property NAME=VALUE``. Raises CommandError."""
    properties: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise CommandError(f"--property {printable(text)} is not NAME=VALUE", "such as --property color=red")
        properties[name] = value
    return properties


def read_content(body: str, file: Path | None) -> bytes:
    """What is to be sent. Raises CommandError."""
    if file is None:
        return body.encode()
    if body:
        raise CommandError("give a body or --file, not both")
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {printable(file)}: {error.strerror}") from error


def read_expiry(text: str | None) -> int:
    """The time of ``--expires`` in microseconds, 0 without one. Raises CommandError."""
    from muster.domain.timestamp import parse_iso

    try:
        return parse_iso(text) if text is not None else 0
    except ValueError as error:
        raise CommandError(f"--expires: {error}") from None


def encode_payload(properties: "C2dProperties", content: bytes) -> bytes:
    """The AMQP message, as Azure's own command line writes it (hub-service.md 6.4)."""
    from muster.wire.amqp_composites import encode_message
    from muster.wire.amqp_messages import Data, Message, Properties
    from muster.wire.amqp_performatives import Fields

    application: Fields = dict(properties.application.items())
    application["iothub-ack"] = properties.ack
    return encode_message(
        Message(
            properties=Properties(
                message_id=properties.message_id,
                to=properties.to,
                correlation_id=properties.correlation_id or None,
                content_type=properties.content_type or None,
                content_encoding=properties.content_encoding or None,
                absolute_expiry_time=properties.expiry // 1000 or None,
            ),
            application_properties=application,
            body=Data((content,)),
        )
    )


def message_document(headers: Mapping[str, str], content: bytes) -> Document:
    """A received message in the words of ``send``; ``headers`` have lower-case names."""
    properties = {
        name.removeprefix(_APPLICATION): value for name, value in headers.items() if name.startswith(_APPLICATION)
    }
    facts: Document = {member: headers[name] for name, member in _FACTS.items() if name in headers}
    return {"lockToken": _token(headers), **facts, "properties": properties, **_content(content)}


def _content(content: bytes) -> Document:
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        import base64

        return {"bodyBase64": base64.b64encode(content).decode()}


def _token(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").strip('"')


def _identity(device_id: str, module_id: str | None) -> list[str]:
    return ["devices", device_id, *(["modules", module_id] if module_id else [])]


def _show(message: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(message)
        return
    rows: list[tuple[str, object]] = [(name, value) for name, value in message.items() if name != "properties"]
    rows[-1:-1] = [(name, value) for name, value in message["properties"].items()]
    print(record_text(rows))
