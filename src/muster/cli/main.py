"""The ``muster`` command: a table of sub-commands, each loaded when it is used, and the one error boundary.

Not here: what the sub-commands do; each has a module of its own.
"""

import importlib
import os
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from muster.cli.failure import CommandError


class Entry(NamedTuple):
    """A sub-command: the module whose typer ``app`` it is, and its line in ``muster --help``."""

    module: str
    help: str
    hidden: bool = False


COMMANDS: dict[str, Entry] = {
    "up": Entry("muster.cli.up", "Start an IoT hub and a provisioning service for development."),
    "env": Entry("muster.cli.env", "Print the exports that make SDKs trust the server."),
    "status": Entry("muster.cli.status", "Show the running server: endpoints, id scope, connection strings."),
    "cert": Entry("muster.cli.cert", "Make and inspect device certificates."),
    "ca": Entry("muster.cli.ca", "Run CAs of your own: issue, verify and revoke certificates."),
    "enrollment": Entry("muster.cli.enrollment", "Manage individual enrollments."),
    "group": Entry("muster.cli.group", "Manage enrollment groups."),
    "allocation": Entry("muster.cli.allocation", "Tell which hub a device would get."),
    "certificate": Entry("muster.cli.certificate", "Manage CA certificates of the provisioning service or of a hub."),
    "linked-hub": Entry("muster.cli.linked_hub", "Manage the hubs that devices are assigned to."),
    "policy": Entry("muster.cli.policy", "Manage the policies of the provisioning service or of a hub."),
    "registration": Entry("muster.cli.registration", "Show and delete registration records."),
    "hub": Entry("muster.cli.hub", "Manage the hubs of the server."),
    "device": Entry("muster.cli.device", "Manage the device identities of the hub."),
    "module": Entry("muster.cli.module", "Manage the modules of a device."),
    "c2d": Entry("muster.cli.c2d", "Send messages to devices, receive them, and read the feedback."),
    "twin": Entry("muster.cli.twin", "Show and change the twins of devices and modules."),
    "method": Entry("muster.cli.method", "Call direct methods of devices and modules."),
    "query": Entry("muster.cli.query", "Find devices and modules by a query."),
    "events": Entry("muster.cli.events", "Read and follow what devices send."),
    "why": Entry("muster.cli.why", "Explain why a device was refused."),
    "token": Entry("muster.cli.token", "Print a bearer token for Azure's management clients."),
    "tutorial": Entry("muster.cli.tutorial", "Enroll and run a first device, step by step."),
    "demo": Entry("muster.cli.demo", "Start a server, run the tutorial, stop the server.", hidden=True),
}


class LazyGroup(TyperGroup):
    """Sub-commands from ``COMMANDS``. Annotated with ``Any``: typer has a private copy of click."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
        return [name for name, entry in COMMANDS.items() if not entry.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature is typer's
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = typer.main.get_command(importlib.import_module(entry.module).app)
        command.hidden = entry.hidden
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in ``muster --help``, without loading any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


app = typer.Typer(
    name="muster",
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"muster {version('muster-iot')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the stack trace of an unexpected error (or MUSTER_DEBUG=1).")
    ] = False,
) -> None:
    """Muster: a local, wire-compatible Azure IoT Hub and Device Provisioning Service."""
    del version
    if debug:
        os.environ["MUSTER_DEBUG"] = "1"  # noqa: TID251 - so that a server started from here sees it too


def main() -> None:
    """Run the command line; ends the process: 0 on success, 1 on failure, 2 on wrong usage, 130 on Ctrl-C."""
    try:
        app(prog_name="muster")
    except CommandError as error:
        _fail(error.message, error.advice)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("MUSTER_DEBUG"):  # noqa: TID251 - asked for by the person who is debugging
            raise
        _fail(f"unexpected error: {type(error).__name__}: {error}", "MUSTER_DEBUG=1 shows the stack trace")


def _fail(message: str, advice: str) -> None:
    print(f"muster: {message}", file=sys.stderr)
    if advice:
        print(f"  {advice}", file=sys.stderr)
    sys.exit(1)
