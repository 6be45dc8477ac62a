"""Where this Muster is served: the names and addresses of its certificate, and what is listened on for them.

Hubs come and go while it runs, each with an address or name of its own. Not here: which hub answers to which name
(``hub/hubs.py``), and connections (``listener.py``).
"""

import asyncio
import ipaddress
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from muster.domain.errors import ArgumentInvalidError
from muster.frontends.listener import AddressMissingError, Listener, ListenError, PortRefusedError

_log = logging.getLogger("muster.listener")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Certifier(Protocol):
    """What the CA of this Muster does for its server certificate."""

    def outside(self, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
        """Which of them the CA, as clients have it, may not certify."""
        ...

    def renew(self, names: Sequence[str], addresses: Sequence[Address]) -> None:
        """Serve from now on with a certificate for all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """``https_fallback`` is taken, for all addresses, when the system refuses ``https`` to this user."""

    mqtt: int
    amqp: int
    https: int
    https_fallback: int


class ServedHosts:
    """The hosts of the start, which stay, and those of hubs, which may leave. ``names`` and ``addresses`` are of the
    start. ``loopback``: nothing else may be served, because the keys are well known.
    """

    def __init__(
        self,
        certifier: Certifier,
        ports: Ports,
        names: Iterable[str],
        addresses: Iterable[Address],
        *,
        loopback: bool,
    ) -> None:
        self._certifier = certifier
        self._ports = ports
        self._names = tuple(names)
        self._addresses = tuple(addresses)
        self._loopback = loopback
        self._added: dict[str, Address | None] = {}
        self._changing = asyncio.Lock()
        self._listener: Listener | None = None
        self.https_port = ports.https
        self.bound: list[str] = []

    @property
    def hosts(self) -> frozenset[str]:
        """All names and addresses under which clients come, in lower case."""
        return frozenset({*self._names, *map(str, self._addresses), *self._added})

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """What is listened on, as the status file shows it."""
        ports = (self._ports.mqtt, self._ports.amqp, self.https_port)
        return [{"address": address, "port": port} for address in self.bound for port in ports]

    def __contains__(self, host: object) -> bool:
        """Whether a client may come under this name; loopback's own are never wrong."""
        return host in _LOOPBACK or host in self.hosts

    async def open(self, listener: Listener, bind: Sequence[str], *, optional: str | None = None) -> None:
        """Listen on the addresses of the start. ``optional`` may be missing on this machine. Raises ListenError."""
        self._listener = listener
        for address in bind:
            try:
                await self._listen(address)
            except AddressMissingError:
                if address != optional:
                    raise

    async def restore(self, hosts: Iterable[str]) -> None:
        """Serve the hubs of earlier starts. One that cannot be served is logged, and the others are served."""
        for host in hosts:
            address = _address(host)
            try:
                self._require_allowed(host, address)
                await self._listen_for(address)
            except (ArgumentInvalidError, ListenError) as error:
                _log.warning("the hub at %s is not served: %s", host, error)
            else:
                self._added[host] = address
        if self._added:
            self._renew()

    async def add(self, host: str) -> None:
        """Serve one more name or address from now on. Raises ArgumentInvalidError with what is in the way."""
        address = _address(host)
        async with self._changing:
            if host in self.hosts:
                return  # the start serves it
            self._require_allowed(host, address)
            self._require_certifiable(host, address)
            try:
                await self._listen_for(address)
            except ListenError as error:
                raise ArgumentInvalidError(f"{host} cannot be served: {error}.") from None
            self._added[host] = address
            self._renew()

    async def remove(self, host: str) -> None:
        """Serve it no more, unless it is one of the start."""
        async with self._changing:
            if host not in self._added:
                return
            address = self._added.pop(host)
            if address is not None and str(address) in self.bound:
                self._close(str(address), (self._ports.mqtt, self._ports.amqp, self.https_port))
                self.bound.remove(str(address))
            self._renew()

    def _require_allowed(self, host: str, address: Address | None) -> None:
        if address is None:
            return
        if self._loopback and not address.is_loopback:
            raise ArgumentInvalidError(
                f"{host} is not a loopback address, and this Muster has well-known keys, which must not be served on a"
                " network: start it with --host-name NAME for that."
            )
        if address.is_unspecified:
            raise ArgumentInvalidError(f"{host} is not an address that a client can dial.")

    def _require_certifiable(self, host: str, address: Address | None) -> None:
        # The CA could be widened, but clients have it as it is, and would then refuse this server under every name.
        names, addresses = ([host], []) if address is None else ([], [address])
        if self._certifier.outside(names, addresses):
            served = ", ".join((*self._names, *map(str, self._addresses)))
            choices = [f"a name such as {_below(host, self._names[0])}"] if self._names else []
            choices += ["an address of 127.0.0.0/8"] if self._loopback else []
            raise ArgumentInvalidError(
                f"{host} cannot be served: the CA certificate that clients trust is limited to what this Muster was"
                f" started for ({served}). Possible is {' or '.join(choices) or 'nothing else'}."
            )

    def _renew(self) -> None:
        names = [*self._names, *(host for host, address in self._added.items() if address is None)]
        added = (address for address in self._added.values() if address is not None)
        self._certifier.renew(names, [*self._addresses, *added])

    async def _listen_for(self, address: Address | None) -> None:
        """A name is an address of this machine that is listened on already; what is bound to all addresses has all."""
        if address is None or str(address) in self.bound:
            return
        if ("0.0.0.0" if address.version == 4 else "::") in self.bound:  # noqa: PLR2004, S104 - IPv4; compared, not bound
            return
        await self._listen(str(address))

    async def _listen(self, address: str) -> None:
        """All three ports or none. Raises ListenError."""
        listener = self._require_listener()
        opened: list[int] = []
        try:
            for port in (self._ports.mqtt, self._ports.amqp):
                await listener.listen(address, port)
                opened.append(port)
            await self._listen_https(listener, address)
        except ListenError:
            self._close(address, opened)
            raise
        self.bound.append(address)

    async def _listen_https(self, listener: Listener, address: str) -> None:
        try:
            await listener.listen(address, self.https_port)
        except PortRefusedError:
            self.https_port = self._ports.https_fallback
            await listener.listen(address, self.https_port)

    def _close(self, address: str, ports: Iterable[int]) -> None:
        listener = self._require_listener()
        for port in ports:
            listener.stop_listening(address, port)

    def _require_listener(self) -> Listener:
        assert self._listener is not None, "what serves hosts is open"
        return self._listener


def _address(host: str) -> Address | None:
    """The address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _below(host: str, name: str) -> str:
    label = host.partition(".")[0]
    return f"{label if label.isalnum() and not label.isdigit() else 'hub2'}.{name}"
