"""``muster token``: a bearer token for Azure's management clients, signed with the key in the data directory.

Not here: what such a token opens (docs/arm.md).
"""

import time
from typing import Annotated

import typer

from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_HOUR = 3600
_SECOND = 1_000_000
_LONGEST = 24 * 366


@app.command()
def token(
    *,
    hours: Annotated[int, typer.Option(help="How long it lives.", min=1, max=_LONGEST)] = 1,
    subject: Annotated[str, typer.Option(help="Whom it names.")] = "muster",
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Print a bearer token for Azure's management clients.

    Whoever has it may change everything that they can change: policies, keys, hubs, CA certificates.
    """
    from muster.cli.management import running_server, token_key
    from muster.domain.bearer import sign_bearer

    status = running_server(data_directory)
    now = int(time.time()) + int(status.get("clockOffsetSeconds", 0))  # noqa: TID251 - the clock of the command line
    text = sign_bearer(token_key(status), subject, now * _SECOND, hours * _HOUR * _SECOND)
    if output is Format.JSON:
        print_json({"accessToken": text, "expires_on": now + hours * _HOUR, "tokenType": "Bearer"})
    else:
        print(text)
