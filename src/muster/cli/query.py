"""``muster query``: devices and modules that a query finds, page after page (hub-service.md 4)."""

from typing import Annotated, Any

import typer

from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, json_text, print_json, printable, short_time, table_text

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Document = dict[str, Any]


@app.command()
def query(
    text: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="Such as: SELECT * FROM devices WHERE tags.site = 'A'", show_default=False
        ),
    ],
    *,
    top: Annotated[int | None, typer.Option(help="Print at most this many.", min=1, show_default=False)] = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Find devices and modules by a query."""
    from muster.cli.query_requests import query_rows

    rows = list(query_rows(connect(connection_string, data_directory), text, top))
    if output is Format.JSON:
        print_json(rows)
    elif rows:
        print(rows_text(rows))
    else:
        print("nothing was found")


def rows_text(rows: list[Document]) -> str:
    """Twins by what tells them apart, other rows by their members."""
    if all("deviceId" in row and "properties" in row and "etag" in row for row in rows):
        rows = [_twin_row(row) for row in rows]
    headers = list(dict.fromkeys(key for row in rows for key in row))
    shown = ([_cell(row[key]) if key in row else "" for key in headers] for row in rows)
    return table_text([printable(key) for key in headers], shown)


def _twin_row(twin: Document) -> Document:
    activity = str(twin.get("lastActivityTime"))
    return {
        "DeviceId": twin["deviceId"],
        **({"ModuleId": twin["moduleId"]} if "moduleId" in twin else {}),
        "Status": twin.get("status"),
        "Connection": twin.get("connectionState"),
        "Last Activity": "" if activity.startswith("0001-01-01") else short_time(activity),
        "Tags": twin.get("tags", {}),
    }


def _cell(value: object) -> str:
    return printable(value) if isinstance(value, str) else json_text(value, indent=None)
