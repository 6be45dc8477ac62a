"""Where a Muster serves: the host name, names and addresses that its options ask for.

Not here: listening there, which is ``frontends/served_hosts.py``.
"""

import ipaddress
from dataclasses import dataclass

from muster.config import (
    ConfigurationError,
    UpOptions,
)
from muster.pki.names import NameTextError, dns_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Muster serves: its host name, the names and addresses of its certificate, the addresses it binds."""

    host: str
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    bind: tuple[str, ...]
    loopback: bool


def place_of(options: UpOptions) -> Place:
    """Raises ConfigurationError for a name or an address that cannot be served so."""
    if options.host_name is not None:
        listen = options.listen or "0.0.0.0"  # noqa: S104 - asked for with --host-name: devices on a network are to reach it
        return _named_place(options.host_name, listen)
    bind = options.addresses or ("127.0.0.1", "::1")
    addresses = tuple(_address(text) for text in bind)
    for address in addresses:
        if not address.is_loopback:
            raise ConfigurationError(
                f"{address} is not a loopback address, and the development identity has well-known keys."
                f" For devices on a network: muster up --host-name NAME --listen {address}"
            )
    plain = "127.0.0.1" in bind
    host = "localhost" if plain else str(addresses[0])
    return Place(host, ("localhost",) if plain else (), addresses, tuple(str(one) for one in addresses), loopback=True)


def _named_place(host: str, listen: str) -> Place:
    bound = _address(listen)
    addresses = () if bound.is_unspecified else (bound,)
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        _require_dns_name(host)
        return Place(host.lower(), (host.lower(),), addresses, (listen,), loopback=False)
    return Place(host, (), tuple(dict.fromkeys((literal, *addresses))), (listen,), loopback=False)


def _require_dns_name(host: str) -> None:
    """That a certificate can be made for it."""
    try:
        dns_name(host)
    except NameTextError as error:
        raise ConfigurationError(f"The host name {error}.") from None


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an IP address such as 127.0.0.2.") from None
