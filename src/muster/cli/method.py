"""``muster method``: direct methods of devices and modules over the hub's REST API (hub-service.md 5)."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, json_text, print_json, printable, record_text

if TYPE_CHECKING:
    from muster.cli.client import Client

app = typer.Typer(
    help="Call direct methods of devices and modules.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Document = dict[str, Any]

_GRACE_SECONDS = 10.0
"""What the server may take beyond the time that the device has."""


@app.callback()
def _commands() -> None:
    """One command now; ``method`` stays a group, as every noun is."""


@app.command()
def invoke(
    device_id: Annotated[str, typer.Argument(help="Device id.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Name of the method.", show_default=False)],
    *,
    module: Annotated[str | None, typer.Option(help="Ask this module of the device.", show_default=False)] = None,
    payload: Annotated[
        str, typer.Option(help='What the method is given: JSON, such as {"speed": 3}, or @FILE.', metavar="JSON|@FILE")
    ] = "null",
    response_timeout: Annotated[int, typer.Option(help="Seconds the device has for its answer.", min=5, max=300)] = 30,
    connect_timeout: Annotated[
        int, typer.Option(help="Seconds to wait for the device to connect and listen.", min=0, max=300)
    ] = 0,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Call a method of a connected device and print its answer; the status in it is the device's own."""
    from muster.cli.enrollment_document import read_json

    body = {
        "methodName": name,
        "payload": read_json(payload, "--payload"),
        "responseTimeoutInSeconds": response_timeout,
        "connectTimeoutInSeconds": connect_timeout,
    }
    answer = _invoke(connect(connection_string, data_directory), device_id, module, body)
    if output is Format.JSON:
        print_json(answer)
    else:
        print(record_text(answer_rows(answer)))


def _invoke(client: "Client", device_id: str, module: str | None, body: Document) -> Document:
    from muster.cli.client import HUB_API_VERSION, path

    segments = ("twins", device_id, *(("modules", module) if module else ()), "methods")
    seconds = _GRACE_SECONDS + body["responseTimeoutInSeconds"] + body["connectTimeoutInSeconds"]
    try:
        answer = client.request(
            client.target.hub,
            "POST",
            path(*segments),
            query={"api-version": HUB_API_VERSION},
            body=body,
            seconds=seconds,
        )
    except RefusedError as error:
        raise explained(error, f"{device_id}/{module}" if module else device_id, body) from error
    return answer.document or {}


def explained(error: RefusedError, device: str, body: Document) -> CommandError:
    """Why the method did not come through, in words about this device; other refusals stay as they are."""
    name = printable(device)
    match error.code:
        case 404001 | 404010:
            message, advice = f"the hub has no {'module' if '/' in device else 'device'} {name}", ""
        case 404103:
            waited = body["connectTimeoutInSeconds"]
            during = f" and did not within {waited} s" if waited else ""
            message = f"{name} is not connected, or does not listen for direct methods{during}"
            advice = "start the device program; --connect-timeout SECONDS waits for it"
        case 404104:
            message = f"{name} disconnected before it answered"
            advice = f"whether {printable(body['methodName'])} was carried out is not known; look at the device"
        case 504101:
            message = f"{name} did not answer within {body['responseTimeoutInSeconds']} s"
            advice = (
                f"it may have carried out {printable(body['methodName'])}; --response-timeout SECONDS gives it longer"
            )
        case _:
            return error
    return CommandError(f"{message} ({error.code})", advice)


def answer_rows(answer: Document) -> list[tuple[str, object]]:
    """What a device answered."""
    return [("Status", answer.get("status")), ("Payload", json_text(answer.get("payload"), indent=None))]
