"""Which server a command talks to: its host names, keys, addresses and CA.

The order is that of ``docs/cli.md``: ``--connection-string``, ``--data-dir``, their variables, the nearest
``.muster``, an ephemeral server of this user, else the development identity. Not here: speaking to it
(``cli/client.py``).
"""

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.cli.failure import CommandError
from muster.config import DEVELOPMENT_KEY, HTTPS_FALLBACK_PORT, HTTPS_PORT

DEVELOPMENT_HOST = "localhost"
DATA_DIRECTORY = ".muster"
STATUS_FILE = "status.json"
EPHEMERAL_PATTERN = "muster-*"

_FIELDS = ("HostName", "SharedAccessKeyName", "SharedAccessKey")
_CONNECTION_STRING_FORM = "it looks like HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=<base64>"
_LAST_PORT = 65535
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read here, not bound: a listener on all is reached by loopback

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """A shared access policy. ``host`` is signed, sent as ``Host`` and looked for in the certificate."""

    host: str
    policy: str
    key: str

    def authorization(self, now: int, life: int) -> str:
        """The Authorization header of a request; times are in seconds."""
        from muster.domain.sas import create_token

        return create_token(self.host, self.key, now + life, self.policy)

    def about(self, origin: str) -> str:
        """What to look at when it is refused."""
        return (
            f"the key is that of policy {self.policy}, from {origin}; "
            "enrollments want one of the provisioning service, devices and events one of the hub"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """One server. ``endpoints`` are (address, port), tried in order; ``origin`` says how it was found.

    ``clock_offset`` is how far the server's clock is ahead of ours, in seconds. ``status`` is its status
    file, if there is one.
    """

    provisioning: Access
    hub: Access
    endpoints: tuple[tuple[str, int], ...]
    ca_file: Path | None
    origin: str
    clock_offset: int = 0
    status: Document | None = None


def find_target(
    connection_string: str | None,
    data_directory: Path | None,
    *,
    environment: Mapping[str, str],
    working_directory: Path,
) -> Target:
    """The server a command is meant for. Raises CommandError when what was given names none."""
    if connection_string is None and data_directory is None:
        connection_string = environment.get("MUSTER_CONNECTION_STRING") or None
    if connection_string is not None:
        nearby = _nearby(data_directory, environment, working_directory)
        return _from_connection_string(connection_string, nearby, environment)
    status = find_status(data_directory, environment=environment, working_directory=working_directory)
    if status is not None:
        return target_from_status(status)
    return _development_target(environment)


def find_status(
    data_directory: Path | None, *, environment: Mapping[str, str], working_directory: Path
) -> Document | None:
    """The status file of the nearest server, or None.

    Raises CommandError when a named directory has none, when the nearest belongs to somebody else, and when
    several ephemeral servers are running.
    """
    named = data_directory or environment.get("MUSTER_DATA_DIR") or None
    if named is not None:
        file = Path(named) / STATUS_FILE
        if not file.is_file():
            raise CommandError(
                f"no server runs on the data directory {named}",
                f"start it with `muster up --data-dir {named}`",
            )
        return read_status(file)
    for directory in (working_directory, *working_directory.parents):
        file = directory / DATA_DIRECTORY / STATUS_FILE
        owner = _owner(file)
        if owner == os.geteuid():
            return read_status(file)
        if owner is not None:
            raise CommandError(
                f"{file} was written by another user, who would decide whom you trust",
                f"if that is right, say so: --data-dir {file.parent}",
            )
    running = list(ephemeral_statuses(environment))
    if len(running) > 1:
        choices = ", ".join(str(status["dataDirectory"]) for status in running)
        raise CommandError(f"{len(running)} ephemeral servers are running", f"choose one with --data-dir: {choices}")
    return running[0] if running else None


def ephemeral_statuses(environment: Mapping[str, str]) -> Iterator[Document]:
    """The status files of this user's running ephemeral servers, where ``muster.server`` makes their directories."""
    roots = dict.fromkeys([environment.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), tempfile.gettempdir()])
    for root in roots:
        for file in sorted(Path(root).glob(f"{EPHEMERAL_PATTERN}/{STATUS_FILE}")):
            if _owner(file) == os.geteuid():
                status = read_status(file)
                if process_runs(int(status.get("pid", 0))):
                    yield status


def read_status(file: Path) -> Document:
    """A status file as written by a server. Raises CommandError when it cannot be read."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(
            f"cannot read {file}: {error.strerror}", "run this as the user who started the server"
        ) from error
    except ValueError as error:
        raise CommandError(f"{file} is not valid JSON", "stop the server and start it again") from error
    if not isinstance(document, dict):
        raise CommandError(f"{file} is not a status file", "stop the server and start it again")
    return document


def process_runs(pid: int) -> bool:
    """Whether this user has a process with this id."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def target_from_status(status: Document) -> Target:
    """The server that wrote this status file."""
    try:
        provisioning = parse_connection_string(status["provisioningService"]["connectionString"])[0]
        hub = parse_connection_string(status["hubs"][0]["connectionString"])[0]
        port = int(status["httpsPort"])
        addresses = [str(item) for item in status["addresses"]]
        origin = str(Path(status["dataDirectory"]) / STATUS_FILE)
        return Target(
            provisioning=provisioning,
            hub=hub,
            endpoints=tuple((_reachable(address), port) for address in addresses) or ((provisioning.host, port),),
            ca_file=Path(status["caFile"]),
            origin=origin,
            clock_offset=int(status.get("clockOffsetSeconds", 0)),
            status=status,
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CommandError(
            f"the status file of the server lacks {error}", "is it from another version of Muster?"
        ) from error


def parse_connection_string(text: str) -> tuple[Access, int | None]:
    """Read ``HostName=..;SharedAccessKeyName=..;SharedAccessKey=..``, in any order.

    Gives the policy and the port of ``HostName=host:port``. Raises CommandError, never with the key in it.
    Source: hub-service.md 1.1, dps.md 6.8.
    """
    fields: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(";"))):
        name, separator, value = item.partition("=")
        if not separator:
            raise CommandError("the connection string has a part without '='", _CONNECTION_STRING_FORM)
        fields[name.strip().lower()] = value.strip()
    if "deviceid" in fields:
        raise CommandError("this is the connection string of a device", _CONNECTION_STRING_FORM)
    missing = [name for name in _FIELDS if not fields.get(name.lower())]
    if missing:
        raise CommandError(f"the connection string lacks {' and '.join(missing)}", _CONNECTION_STRING_FORM)
    _require_base64(fields["sharedaccesskey"])
    host, port = split_host(fields["hostname"])
    return Access(host, fields["sharedaccesskeyname"], fields["sharedaccesskey"]), port


def split_host(text: str) -> tuple[str, int | None]:
    """Host and port of ``host``, ``host:port``, ``[::1]:port`` or an IPv6 address. Raises CommandError."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isdigit() and 0 < int(port) <= _LAST_PORT)):
        raise CommandError(f"{text!r} is not a host name, or a host name and a port", _CONNECTION_STRING_FORM)
    return host, int(port) if port else None


def _require_base64(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise CommandError(
            "the SharedAccessKey of the connection string is not base64", _CONNECTION_STRING_FORM
        ) from None


def _reachable(address: str) -> str:
    return _EVERY_ADDRESS.get(address, address)


def _nearby(data_directory: Path | None, environment: Mapping[str, str], directory: Path) -> Target | None:
    """The server that would be used without a connection string; None also when it cannot be used."""
    with suppress(CommandError):
        status = find_status(data_directory, environment=environment, working_directory=directory)
        return target_from_status(status) if status is not None else None
    return None


def _from_connection_string(text: str, nearby: Target | None, environment: Mapping[str, str]) -> Target:
    """The host of the string, with CA, addresses and clock of a server nearby when it has the same host."""
    access, port = parse_connection_string(text)
    if nearby is not None and access.host in _hosts(nearby):
        endpoints = nearby.endpoints if port is None else tuple((host, port) for host, _ in nearby.endpoints)
        return replace(nearby, provisioning=access, hub=access, endpoints=endpoints, origin="the connection string")
    endpoint = (access.host, port or HTTPS_PORT)
    return Target(access, access, (endpoint,), _trust(environment), "the connection string")


def _hosts(target: Target) -> set[str]:
    """Under which hosts a server has services: each hub may have one of its own."""
    hubs = (target.status or {}).get("hubs") or ()
    return {target.provisioning.host, target.hub.host, *(str(hub["host"]) for hub in hubs)}


def _development_target(environment: Mapping[str, str]) -> Target:
    return Target(
        provisioning=Access(DEVELOPMENT_HOST, "provisioningserviceowner", DEVELOPMENT_KEY),
        hub=Access(DEVELOPMENT_HOST, "iothubowner", DEVELOPMENT_KEY),
        endpoints=((DEVELOPMENT_HOST, HTTPS_PORT), (DEVELOPMENT_HOST, HTTPS_FALLBACK_PORT)),
        ca_file=_trust(environment),
        origin="the development identity",
    )


def _trust(environment: Mapping[str, str]) -> Path | None:
    """None means the system's trust, in which OpenSSL itself honours SSL_CERT_FILE."""
    named = environment.get("MUSTER_CA_FILE")
    return Path(named) if named else None


def _owner(file: Path) -> int | None:
    """The user id of whoever wrote this file; None when it is not there, or not to be seen."""
    try:
        return file.stat().st_uid
    except OSError:
        return None
