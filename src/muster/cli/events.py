"""``muster events``: what devices sent, read and followed under ``/muster/v1/events``."""

import json
import os
import select
import sys
import threading
import time
from typing import Annotated, Any

import typer

from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, json_text, print_json, printable, short_time

app = typer.Typer(
    help="Read and follow what devices send.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

LOCATION = "/muster/v1/events"

Document = dict[str, Any]

Device = Annotated[str | None, typer.Option(help="Only events of this device.", show_default=False)]
Partition = Annotated[int | None, typer.Option(help="Only this partition.", min=0, show_default=False)]
Source = Annotated[str | None, typer.Option(help="Only events of this source, such as Telemetry.", show_default=False)]
From = Annotated[
    str,
    typer.Option(
        "--from",
        help="Where to start: earliest, latest, or a sequence number of --partition.",
        metavar="earliest|latest|NUMBER",
    ),
]


@app.command()
def tail(
    *,
    device: Device = None,
    start: From = "latest",
    partition: Partition = None,
    source: Source = None,
    count: Annotated[int | None, typer.Option(help="End after this many events.", min=1, show_default=False)] = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print events as they arrive, until Ctrl-C; in JSON one event per line."""
    query = _query(device, start, partition, source)
    client = connect(connection_string, data_directory)
    _end_with_reader()
    left = count
    stream = client.stream(client.target.hub, LOCATION, query=query, opened=_say_that_it_flows(), pause=time.sleep)
    for item in stream:
        event = json.loads(item.data)
        print(json_text(event, indent=None) if output is Format.JSON else event_line(event), flush=True)
        if left is not None:
            left -= 1
            if not left:
                return


@app.command(name="list")
def list_events(
    *,
    device: Device = None,
    start: From = "earliest",
    partition: Partition = None,
    source: Source = None,
    top: Annotated[int, typer.Option(help="Print at most this many.", min=1, max=1000)] = 100,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the events that are stored, the first ones from --from on."""
    query = {**_query(device, start, partition, source), "top": top}
    client = connect(connection_string, data_directory)
    events = client.request(client.target.hub, "GET", LOCATION, query=query).document or []
    if output is Format.JSON:
        print_json(events)
        return
    for event in events:
        print(event_line(event))


def event_line(event: Document) -> str:
    """One event on one line: when, who, where in the log, the body, and the properties it carries."""
    sender = "/".join(str(event[key]) for key in ("deviceId", "moduleId") if event.get(key))
    place = f"{event.get('partition')}#{event.get('sequenceNumber')}"
    parts = [short_time(event.get("enqueuedTimeUtc")), printable(sender), place]
    if event.get("source") not in (None, "Telemetry"):
        parts.append(printable(event["source"]))
    parts.append(_body_text(event))
    properties = event.get("applicationProperties")
    if properties:
        parts.append(json_text(properties, indent=None))
    return "  ".join(parts)


def _body_text(event: Document) -> str:
    encoding = event.get("bodyEncoding")
    if encoding == "json":
        return json_text(event.get("body"), indent=None)
    if encoding == "base64":
        return f"base64:{printable(event.get('bodyBase64'))}"
    return printable(event.get("body"))


def _query(device: str | None, start: str, partition: int | None, source: str | None) -> dict[str, str | int | None]:
    if start not in ("earliest", "latest"):
        if not start.isdecimal():
            raise typer.BadParameter("is earliest, latest or a sequence number", param_hint="--from")
        if partition is None:
            raise typer.BadParameter("a sequence number needs --partition", param_hint="--from")
    return {"deviceId": device, "from": start, "partition": partition, "source": source}


def _end_with_reader() -> None:
    """End when nobody reads standard output any more, as of a pipe into ``head``, and not with the next event only."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError):
        return  # closed, or no file at all
    poll = select.poll()
    poll.register(output, 0)  # errors and hang-ups alone, which are always told

    def watch() -> None:
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say_that_it_flows() -> Any:
    """Something to call each time the stream flows: people and scripts wait for the line it writes."""

    def opened() -> None:
        typer.echo("following events (Ctrl-C ends)", err=True)

    return opened
