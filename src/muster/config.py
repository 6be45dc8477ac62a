"""What a start of Muster is told, as frozen records. Only the command line and the composition root read them.

Not here: what operators change while running; that is data. Components receive plain values, never these records.
"""

from dataclasses import dataclass
from pathlib import Path

from muster.domain.throttle import Rates

DEVELOPMENT_KEY = "bXVzdGVyLWRldi1rZXktdGhpcy1pcy1uby1zZWNyZXQ="
"""The documented key of every policy of the development identity; it decodes to what it is."""

DEVELOPMENT_ID_SCOPE = "0ne00DE5EED"

TOKEN_KEY_FILE = "token.key"  # noqa: S105 - the name of a file
"""Where a data directory has the key of its bearer tokens."""

MQTT_PORT = 8883
AMQP_PORT = 5671
HTTPS_PORT = 443
HTTPS_FALLBACK_PORT = 8443


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of ``muster up``; ``clock_offset`` in microseconds, ``database`` a PostgreSQL URL or None.

    ``ca_directory`` is where the CAs are that issue for devices; None: in the data directory.
    ``revocation_lists``: files and directories; none means that nothing is asked about revocation.
    """

    data_directory: Path
    addresses: tuple[str, ...] = ()
    host_name: str | None = None
    listen: str | None = None
    ephemeral: bool = False
    clock_offset: int = 0
    trace: Path | None = None
    portal_port: int = 8080
    database: str | None = None
    ca_directory: Path | None = None
    revocation_lists: tuple[Path, ...] = ()
    fault_injection: bool = False
    log_level: str = "info"
    log_format: str = "text"
    rates: Rates = Rates()  # noqa: RUF009 - frozen


class ConfigurationError(Exception):
    """What was asked for cannot be done; the message says why and what to do."""
