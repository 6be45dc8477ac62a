"""``muster why``: the reports behind refusals, as named checks with their fixes.

Not here: the checks; the server evaluated them on what really arrived.
"""

from typing import Annotated

import typer

from muster.cli.checks import Document, Marks, check_lines, marks
from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, short_time, table_text

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def why(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Tracking id, registration id or device id; without it the last refusals are listed.",
            show_default=False,
        ),
    ] = None,
    *,
    top: Annotated[int, typer.Option(help="List at most this many refusals.", min=1)] = 20,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Explain why a device was refused.

    The tracking id is in the answer that the device got.
    """
    from muster.cli.client import path

    client = connect(connection_string, data_directory)
    access = client.target.provisioning
    if subject is None:
        reports = client.request(access, "GET", "/muster/v1/reports", query={"top": top}).document or []
        shown = report_table(reports) if reports else "nothing was refused"
    else:
        try:
            reports = client.request(access, "GET", path("muster", "v1", "reports", subject)).document
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            raise _nothing_known(subject) from error
        shown = report_history(reports, marks())
    if output is Format.JSON:
        print_json(reports)
    else:
        print(shown)


def report_history(reports: list[Document], marks: Marks) -> str:
    """The newest report in full and, in one line each, those before it."""
    text = report_text(reports[0], marks)
    if len(reports) > 1:
        text += f"\n\nBefore that:\n{report_table(reports[1:])}"
    return text


def report_text(report: Document, marks: Marks) -> str:
    """One report: the verdict, every check, what Azure answers, and what to do."""
    head = f"{str(report['verdict']).upper()}  {report['operation']} {report['subject']}"
    lines = [
        printable(head),
        *(f"  {label.ljust(_LABEL_WIDTH)}{text}" for label, text in _facts(report) if text),
    ]
    lines += ["", *check_lines(report["checks"], marks)]
    return "\n".join(lines)


def report_table(reports: list[Document]) -> str:
    """One line per report, newest first as they come."""
    headers = ("Time", "Service", "Subject", "Operation", "Verdict", "Failed Checks", "Tracking Id")
    return table_text(headers, [_table_row(report) for report in reports])


_LABEL_WIDTH = 16


def _facts(report: Document) -> list[tuple[str, str]]:
    return [
        ("tracking id", printable(report["trackingId"])),
        ("when", short_time(report["timeUtc"])),
        ("service", printable(f"{report['service']} {report['scope']}")),
        ("from", printable(report["peer"])),
        ("credential", printable(report["credential"])),
        ("Azure answers", printable(report["answer"])),
    ]


def _table_row(report: Document) -> tuple[object, ...]:
    failed = [str(check["id"]) for check in report["checks"] if check["outcome"] == "refused"]
    return (
        short_time(report["timeUtc"]),
        report["service"],
        report["subject"],
        report["operation"],
        report["verdict"],
        ", ".join(failed),
        report["trackingId"],
    )


def _nothing_known(subject: str) -> CommandError:
    return CommandError(
        f"no report knows {printable(subject)}",
        "`muster why` lists the last refusals; a device that was never refused has no report",
    )


_NOT_FOUND = 404
