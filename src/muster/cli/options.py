"""The options that every client command has, and the client they lead to.

The only place of the command line, beside ``muster up``, that reads the environment and the clock.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.output import Format

if TYPE_CHECKING:
    from muster.cli.client import Client
    from muster.cli.target import Document, Target

ConnectionString = Annotated[
    str | None,
    typer.Option(
        "--connection-string",
        help="HostName=..;SharedAccessKeyName=..;SharedAccessKey=.. of the server"
        " (else MUSTER_CONNECTION_STRING, else the nearest .muster directory).",
        show_default=False,
    ),
]

DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of the server (else MUSTER_DATA_DIR, else the nearest .muster directory).",
        show_default=False,
    ),
]

Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


@dataclass(frozen=True)
class ServerOptions:
    """The options that say which server is meant, for ``cli/option_records.py``."""

    connection_string: ConnectionString = None
    data_directory: DataDirectory = None

    def connect(self) -> "Client":
        """A client of it. Raises CommandError."""
        return connect(self.connection_string, self.data_directory)


def find_target(connection_string: str | None, data_directory: Path | None) -> "Target":
    """The server these options mean. Raises CommandError."""
    from muster.cli import target

    return target.find_target(
        connection_string,
        data_directory,
        environment=os.environ,  # noqa: TID251 - the command line reads the environment here, once
        working_directory=Path.cwd(),
    )


def find_status(data_directory: Path | None) -> "Document | None":
    """The status file of the server these options mean, if it has one. Raises CommandError."""
    from muster.cli import target

    return target.find_status(
        data_directory,
        environment=os.environ,  # noqa: TID251 - the command line reads the environment here, once
        working_directory=Path.cwd(),
    )


def connect(connection_string: str | None, data_directory: Path | None) -> "Client":
    """A client of the server these options mean. Raises CommandError."""
    from muster.cli.client import Client

    return Client(find_target(connection_string, data_directory), clock=time.time)  # noqa: TID251 - the one clock
