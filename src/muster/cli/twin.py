"""``muster twin``: the twins of devices and modules over the hub's REST API (hub-service.md 3)."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, json_text, print_json, record_text, short_time

if TYPE_CHECKING:
    from muster.cli.client import Client

app = typer.Typer(
    help="Show and change the twins of devices and modules.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Document = dict[str, Any]

DeviceId = Annotated[str, typer.Argument(help="Device id.", show_default=False)]
Module = Annotated[str | None, typer.Option(help="The twin of this module of the device.", show_default=False)]
Etag = Annotated[str, typer.Option(help="Go on only if the twin still has this ETag; * is any.", metavar="ETAG")]


@app.command()
def show(
    device_id: DeviceId,
    *,
    module: Module = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show a twin; metadata and thumbprints only in JSON."""
    _show(_request(connect(connection_string, data_directory), "GET", device_id, module), output)


@app.command()
def update(
    device_id: DeviceId,
    *,
    module: Module = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Tag; null removes it; may be given again.", metavar="NAME=VALUE", show_default=False),
    ] = None,
    desired: Annotated[
        list[str] | None,
        typer.Option(
            help="Desired property; null removes it; may be given again.", metavar="NAME=VALUE", show_default=False
        ),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help='Patch as JSON, such as {"tags": {"site": "A"}}, or @FILE with it.',
            metavar="JSON|@FILE",
            show_default=False,
        ),
    ] = None,
    etag: Etag = "*",
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change tags and desired properties; what is not named stays."""
    body = twin_patch(patch, tag or [], desired or [])
    client = connect(connection_string, data_directory)
    _show(_request(client, "PATCH", device_id, module, body=body, etag=etag), output)


@app.command()
def replace(
    device_id: DeviceId,
    twin: Annotated[
        str,
        typer.Argument(
            help='Twin as JSON, such as {"properties": {"desired": {"interval": 30}}}, or @FILE with it.',
            metavar="JSON|@FILE",
            show_default=False,
        ),
    ],
    *,
    module: Module = None,
    etag: Etag = "*",
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Replace tags and desired properties; what is not named is removed."""
    from muster.cli.enrollment_document import read_json_object

    body = read_json_object(twin, "the twin")
    client = connect(connection_string, data_directory)
    _show(_request(client, "PUT", device_id, module, body=body, etag=etag), output)


def twin_patch(patch: str | None, tags: list[str], desired: list[str]) -> Document:
    """The body of a PATCH. Raises CommandError for what cannot be read, and when nothing is to be changed."""
    from muster.cli.enrollment_document import assign_all, read_json_object

    body = read_json_object(patch, "--patch") if patch is not None else {}
    if tags:
        assign_all(_object_at(body, "tags"), tags, "--tag")
    if desired:
        assign_all(_object_at(_object_at(body, "properties"), "desired"), desired, "--desired")
    if not body:
        raise CommandError("nothing is to be changed", "say what: --tag, --desired or --patch")
    return body


def _object_at(document: Document, name: str) -> Document:
    inner = document.get(name)
    if not isinstance(inner, dict):
        inner = document[name] = {}
    return inner


def twin_rows(twin: Document) -> list[tuple[str, object]]:
    """A twin without its metadata."""
    properties = twin.get("properties") or {}
    return [
        ("DeviceId", twin.get("deviceId")),
        *([("ModuleId", twin["moduleId"])] if twin.get("moduleId") else []),
        ("Status", twin.get("status")),
        ("Connection", twin.get("connectionState")),
        ("Last Activity", when(twin.get("lastActivityTime"))),
        ("Model Id", twin.get("modelId")),
        ("Tags", json_text(twin.get("tags") or {}, indent=None)),
        *_section_rows("Desired", properties.get("desired") or {}),
        *_section_rows("Reported", properties.get("reported") or {}),
        ("Version", twin.get("version")),
        ("ETag", twin.get("etag")),
    ]


def when(text: object) -> str:
    """A time, or nothing for one that was never set (hub-service.md 2.2)."""
    return "" if str(text or "").startswith("0001-01-01") else short_time(text)


def _section_rows(name: str, section: Document) -> list[tuple[str, object]]:
    values = {key: value for key, value in section.items() if not key.startswith("$")}
    updated = when((section.get("$metadata") or {}).get("$lastUpdated"))
    return [
        (name, json_text(values, indent=None)),
        ("", f"version {section.get('$version')}" + (f" of {updated}" if updated else "")),
    ]


def _request(
    client: "Client",
    method: str,
    device_id: str,
    module: str | None,
    *,
    body: Document | None = None,
    etag: str | None = None,
) -> Document:
    from muster.cli.client import HUB_API_VERSION, path

    segments = ("twins", device_id, "modules", module) if module else ("twins", device_id)
    headers = {} if etag is None else {"If-Match": etag if etag == "*" else f'"{etag}"'}
    answer = client.request(
        client.target.hub, method, path(*segments), query={"api-version": HUB_API_VERSION}, body=body, headers=headers
    )
    return answer.document or {}


def _show(twin: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(twin)
    else:
        print(record_text(twin_rows(twin)))
