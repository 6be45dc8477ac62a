"""What ``muster up`` prints once it is ready: the documentation of the first hour. Pure: status in, text out.

Keys are in it only when they are the well-known development ones. Not here: what the status says.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import Any

from muster.cli.output import printable
from muster.cli.target import DATA_DIRECTORY
from muster.config import AMQP_PORT, HTTPS_FALLBACK_PORT, HTTPS_PORT, MQTT_PORT

PORT_FIX = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"

_PORT_USES = {
    MQTT_PORT: "MQTT",
    AMQP_PORT: "AMQP",
    HTTPS_PORT: "HTTPS and MQTT over WebSocket",
    HTTPS_FALLBACK_PORT: "HTTPS and MQTT over WebSocket",
}
_LABEL_WIDTH = 16

Document = Mapping[str, Any]


def render_banner(status: Document) -> str:
    """The banner of a server with this status (the content of ``status.json``), without a last line break."""
    parts = [_head(status), _services(status), _trust(status), _next_steps(status)]
    parts.extend(_notice(text) for text in notices(status))
    return "\n\n".join(parts)


def notices(status: Document) -> Iterator[tuple[str, ...]]:
    """What a user should know about this start: each a few lines, the first says what is different."""
    if status["httpsPort"] != HTTPS_PORT:
        yield (
            f"Port 443 was refused to this user: HTTPS is served on {status['httpsPort']} instead.",
            "Devices on MQTT (8883) and the muster commands work. These cannot use another port than 443:",
            "WebSocket transports, HTTPS transports of devices, file upload, and Node's Registry and",
            f"provisioning service clients. One line, once:  {PORT_FIX}",
        )
    if "localhost" in _host_names(status) and "::1" not in status["addresses"]:
        yield (
            "::1 is not served: this machine has no IPv6 loopback, or it was not asked for.",
            "A client that takes localhost for ::1 and does not try 127.0.0.1 after it cannot connect.",
        )
    offset = int(status.get("clockOffsetSeconds", 0))
    if offset:
        yield (
            f"The clock of this server is {describe_offset(offset)}.",
            "Certificates, SAS tokens and time stamps are judged and made by that clock.",
        )


def describe_offset(seconds: int) -> str:
    """``400 days ahead``, ``2:00:00 behind``."""
    return f"{timedelta(seconds=abs(seconds))} {'ahead' if seconds > 0 else 'behind'}".replace(", 0:00:00", "")


def endpoint_lines(status: Document) -> list[str]:
    """One line per address: what is served on which port."""
    ports: dict[str, list[int]] = {}
    for endpoint in status["endpoints"]:
        ports.setdefault(str(endpoint["address"]), []).append(int(endpoint["port"]))
    return [
        f"{address}: " + ", ".join(f"{port} {_PORT_USES.get(port, '')}".rstrip() for port in numbers)
        for address, numbers in ports.items()
    ]


def _head(status: Document) -> str:
    return f"Muster {status['version']} is ready. Persistence: {status['persistence']}"


def _services(status: Document) -> str:
    provisioning = status["provisioningService"]
    rows = [("DPS", f"{provisioning['host']}, id scope {provisioning['idScope']}")]
    rows.extend(("IoT hub", str(hub["host"])) for hub in status["hubs"])
    rows.append(("Portal", _portal(status)))
    rows.extend(("Listening on", line) for line in endpoint_lines(status))
    rows.append(("CA certificate", str(status["caFile"])))
    rows.extend(_connection_strings(status))
    return _rows(rows)


def _portal(status: Document) -> str:
    address, separator, _ = str(status["portal"]).partition("?")
    return f"{address} (`muster status` shows it with its start token)" if separator else address


def _connection_strings(status: Document) -> Iterator[tuple[str, str]]:
    if not status.get("wellKnownIdentity"):
        yield "Secrets", "`muster status` shows the connection strings (they are not printed here)"
        return
    yield "DPS string", str(status["provisioningService"]["connectionString"])
    for hub in status["hubs"]:
        yield "Hub string", str(hub["connectionString"])
    yield "", "The keys are the well-known development keys: they protect nothing, on loopback only."


def _trust(status: Document) -> str:
    text = (
        "In every shell that runs a device or a back end, so that SDKs trust this server:\n"
        f'  eval "$(muster env{_data_option(status)})"'
    )
    if not status.get("wellKnownIdentity"):
        host = printable(status["provisioningService"]["host"])
        text += f"\nElsewhere, {host} must lead to this machine, and SSL_CERT_FILE to a copy of the CA certificate."
    return text


def _next_steps(status: Document) -> str:
    option = _data_option(status)
    steps = [
        (f"muster tutorial{option}", "enroll and run a first device, step by step"),
        (f"muster status -o env{option}", "host, id scope and connection strings for scripts"),
        (f"muster events tail{option}", "what devices send, as it arrives"),
        (f"muster why{option}", "the last refusals, and how to fix them"),
    ]
    width = max(len(command) for command, _ in steps)
    return "Next:\n" + "\n".join(f"  {command.ljust(width)}  {purpose}" for command, purpose in steps)


def _data_option(status: Document) -> str:
    """What a command needs to find this server; nothing when it looks there by itself."""
    directory = PurePath(status["dataDirectory"])
    if directory.name == DATA_DIRECTORY or str(status["persistence"]).startswith("ephemeral"):
        return ""
    return f" --data-dir {shlex.quote(str(directory))}"


def _notice(lines: Sequence[str]) -> str:
    return "\n".join(("! " + lines[0], *("  " + line for line in lines[1:])))


def _host_names(status: Document) -> set[str]:
    return {str(status["provisioningService"]["host"]), *(str(hub["host"]) for hub in status["hubs"])}


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {label.ljust(_LABEL_WIDTH)}{printable(value)}" for label, value in rows)
