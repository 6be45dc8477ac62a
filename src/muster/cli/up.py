"""``muster up``: reads the options and hands them to the server. Not here: anything the server does."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError

if TYPE_CHECKING:
    from muster.domain.throttle import Rates

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class LogLevel(StrEnum):
    """The choices of ``--log-level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The choices of ``--log-format``."""

    TEXT = "text"
    JSON = "json"


_OFFSET = re.compile(r"[+-](?:[0-9]+[smhdw])+")
_OFFSET_STEP = re.compile(r"([0-9]+)([smhdw])")
_UNIT_MICROSECONDS = {
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_LONGEST_OFFSET = 100 * 366 * _UNIT_MICROSECONDS["d"]


def parse_offset(text: str) -> int:
    """Microseconds of ``+400d``, ``-2h`` or a sum such as ``+1d12h`` (s, m, h, d, w). Raises ValueError."""
    if text == "0":
        return 0
    if not _OFFSET.fullmatch(text):
        raise ValueError(f"{text!r} is not an offset such as +400d, -2h or +1d12h (units: s, m, h, d, w)")
    size = sum(int(count) * _UNIT_MICROSECONDS[unit] for count, unit in _OFFSET_STEP.findall(text))
    if size > _LONGEST_OFFSET:
        raise ValueError(f"{text!r} is more than a hundred years")
    return -size if text.startswith("-") else size


def _clock(text: str) -> int:
    try:
        return parse_offset(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--clock") from None


def _rates(text: str) -> "Rates":
    from muster.domain.throttle import read_rates

    try:
        return read_rates(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--limits") from None


@app.command()
def up(
    *,
    address: Annotated[
        list[str] | None,
        typer.Option(
            help="Loopback address to serve, instead of 127.0.0.1 and ::1; may be given again.",
            show_default=False,
        ),
    ] = None,
    host_name: Annotated[
        str | None,
        typer.Option(help="Name under which devices on a network reach this machine.", show_default=False),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(help="Address to listen on with --host-name, such as 0.0.0.0.", show_default=False),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where certificates, keys and data are kept.")] = Path(".muster"),
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing: a private directory, removed at the end.")
    ] = False,
    clock: Annotated[
        str, typer.Option(help="How far the server's clock is ahead (+400d) or behind (-2h); sums: +1d12h.")
    ] = "0",
    trace: Annotated[
        Path | None,
        typer.Option(help="Record the decrypted bytes of connections in this file.", show_default=False),
    ] = None,
    portal_port: Annotated[int, typer.Option(help="Plain port of the portal.", min=1, max=65535)] = 8080,
    database: Annotated[
        str | None,
        typer.Option(help="postgresql://... to keep data there instead of in SQLite.", show_default=False),
    ] = None,
    ca_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the CAs that issue certificates for devices, if not ca in the data directory.",
            show_default=False,
        ),
    ] = None,
    limits: Annotated[
        str,
        typer.Option(
            metavar="RATES",
            help="How often may be asked before the answer is 429: off, azure, or single rates such as"
            " azure,registrations=20/m,polls=off.",
        ),
    ] = "off",
    crl: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|DIRECTORY",
            help="Refuse devices whose certificate is on these revocation lists; may be given again.",
            show_default=False,
        ),
    ] = None,
    fault_injection: Annotated[
        bool, typer.Option("--fault-injection", help="Let devices ask for faults, as on Microsoft's own test hubs.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Least severe record that is logged.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="How log records look.")] = LogFormat.TEXT,
) -> None:
    """Start an IoT hub and a provisioning service for development.

    Runs until Ctrl-C or SIGTERM. Nothing has to be configured; the banner says what to do next.
    """
    if listen and not host_name:
        raise typer.BadParameter("needs --host-name, the name that devices use for this machine", param_hint="--listen")
    if address and (host_name or listen):
        raise typer.BadParameter("is for loopback; it excludes --host-name and --listen", param_hint="--address")
    offset = _clock(clock)

    from muster.config import ConfigurationError, UpOptions
    from muster.server.run import run_up

    rates = _rates(limits)

    options = UpOptions(
        addresses=tuple(address or ()),
        host_name=host_name,
        listen=listen,
        data_directory=data_dir,
        ephemeral=ephemeral,
        clock_offset=offset,
        trace=trace,
        portal_port=portal_port,
        database=database,
        ca_directory=ca_dir,
        revocation_lists=tuple(crl or ()),
        fault_injection=fault_injection,
        log_level=log_level.value,
        log_format=log_format.value,
        rates=rates,
    )
    try:
        code = run_up(options, _print_banner)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    raise typer.Exit(code)


def _print_banner(status: Mapping[str, Any]) -> None:
    from muster.cli.banner import render_banner

    print(render_banner(status), flush=True)
