"""``muster env``: the exports that make SDKs trust the server, quoted for the shell.

Not here: host names and connection strings for programs; that is ``muster status -o env``.
"""

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.options import DataDirectory, find_status

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Shell(StrEnum):
    """The choices of ``--shell``."""

    POSIX = "posix"
    FISH = "fish"
    POWERSHELL = "powershell"


def trust_variables(status: Mapping[str, Any]) -> dict[str, str]:
    """Who reads what (interop-facts.md 27).

    ``trustFile`` holds the trust in force and our CA: these variables replace what a client trusts, and pip
    and git must go on working. Node alone adds to its own trust, so it gets our CA by itself.
    """
    bundle, ca = str(status["trustFile"]), str(status["caFile"])
    return {
        "SSL_CERT_FILE": bundle,  # OpenSSL: the Python device SDK, the C SDK, mosquitto
        "REQUESTS_CA_BUNDLE": bundle,  # requests, msrest, az
        "CURL_CA_BUNDLE": bundle,  # curl
        "NODE_EXTRA_CA_CERTS": ca,  # Node
    }


def render_exports(variables: Mapping[str, str], shell: Shell) -> str:
    """One statement per variable that ``shell`` takes literally, whatever is in the value."""
    return "\n".join(_STATEMENTS[shell](name, value) for name, value in variables.items())


def _posix(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{escaped}';"


def _powershell(name: str, value: str) -> str:
    quotes = dict.fromkeys(map(ord, "'\u2018\u2019\u201a\u201b"))  # PowerShell ends a string at each of these
    escaped = value.translate({quote: chr(quote) * 2 for quote in quotes})
    return f"$env:{name} = '{escaped}'"


_STATEMENTS = {Shell.POSIX: _posix, Shell.FISH: _fish, Shell.POWERSHELL: _powershell}


@app.command()
def env(
    shell: Annotated[Shell, typer.Option(help="Whose syntax to print.")] = Shell.POSIX,
    data_directory: DataDirectory = None,
) -> None:
    """Print the exports that make SDKs trust the server.

    Use it as eval "$(muster env)". In fish: muster env --shell fish | source. In PowerShell:
    muster env --shell powershell | Invoke-Expression.
    """
    status = find_status(data_directory)
    if status is None:
        raise CommandError(
            "found no running server from this directory",
            "start one with `muster up`, or name its data directory with --data-dir",
        )
    print(render_exports(trust_variables(status), shell))
