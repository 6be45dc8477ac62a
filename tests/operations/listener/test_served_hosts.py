"""Hosts that come and go while the server runs: what is listened on, and what the certificate names."""

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.fix_arm import RecordingCertifier
from tests.support.fix_listener import Recorder, connected, server_tls
from tests.support.fix_server import free_address

from muster.domain.errors import ArgumentInvalidError
from muster.frontends.listener import AddressMissingError, Listener, Peer, PortTakenError, Protocols
from muster.frontends.served_hosts import Ports, ServedHosts

# Of this process alone, below what the system gives away by itself: one test listens on every address of the machine.
_FIRST_PORT = 20_000 + 4 * (os.getpid() % 3_000)
PORTS = Ports(_FIRST_PORT, _FIRST_PORT + 1, _FIRST_PORT + 2, _FIRST_PORT + 3)
ALL = {PORTS.mqtt, PORTS.amqp, PORTS.https}


def is_open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def open_ports(address: str) -> set[int]:
    # Nothing is waited for: the kernel answers for a listening socket.
    return {port for port in (PORTS.mqtt, PORTS.amqp, PORTS.https, PORTS.https_fallback) if is_open(address, port)}


class Served:
    """A server that was started on ``address``."""

    def __init__(self, address: str, *, loopback: bool, network: str = "127.0.0.0/8") -> None:
        def http(peer: Peer) -> asyncio.Protocol:
            return Recorder("http", peer, echo=True)

        self.address = address
        self.certifier = RecordingCertifier(network)
        self.listener = Listener(Protocols(http=http), tls=server_tls())
        addresses = (ipaddress.ip_address(address),)
        self.hosts = ServedHosts(self.certifier, PORTS, ("example.net",), addresses, loopback=loopback)


@asynccontextmanager
async def serving(
    *, loopback: bool = True, bind: str | None = None, network: str = "127.0.0.0/8"
) -> AsyncIterator[Served]:
    served = Served(free_address(), loopback=loopback, network=network)
    try:
        await served.hosts.open(served.listener, (bind or served.address,))
        yield served
    finally:
        await served.listener.close()


async def test_the_start() -> None:
    async with serving() as served:
        assert open_ports(served.address) == ALL
        assert served.hosts.bound == [served.address]
        assert served.hosts.hosts == {"example.net", served.address}
        assert served.hosts.endpoints == [
            {"address": served.address, "port": port} for port in (PORTS.mqtt, PORTS.amqp, PORTS.https)
        ]
        assert served.certifier.renewed == []


async def test_an_address_comes_and_goes() -> None:
    async with serving() as served:
        address = free_address()
        assert open_ports(address) == set()
        await served.hosts.add(address)
        assert open_ports(address) == ALL
        assert served.certifier.renewed[-1] == {"example.net", served.address, address}
        assert address in served.hosts
        async with connected((address, PORTS.mqtt)):
            await served.hosts.remove(address)
            assert served.listener.counters.open == 1, "an open connection stays"
        assert open_ports(address) == set()
        assert open_ports(served.address) == ALL
        assert served.certifier.renewed[-1] == {"example.net", served.address}
        assert served.hosts.bound == [served.address]
        await served.hosts.add(address)
        assert open_ports(address) == ALL


async def test_a_name_needs_no_address_of_its_own() -> None:
    async with serving() as served:
        await served.hosts.add("east.example.net")
        assert served.certifier.renewed == [{"example.net", "east.example.net", served.address}]
        assert served.hosts.bound == [served.address]
        await served.hosts.remove("east.example.net")
        assert "east.example.net" not in served.hosts


async def test_hosts_of_the_start_stay() -> None:
    async with serving() as served:
        for host in (served.address, "example.net"):
            await served.hosts.add(host)
            await served.hosts.remove(host)
        await served.hosts.remove("east.example.net")
        assert served.certifier.renewed == []
        assert open_ports(served.address) == ALL


async def test_all_or_none_of_the_ports() -> None:
    async with serving() as served:
        address = free_address()
        with socket.socket() as other:
            other.bind((address, PORTS.https))
            other.listen()
            with pytest.raises(ArgumentInvalidError, match=f"{address} cannot be served: {address} port .* is taken"):
                await served.hosts.add(address)
            assert not {PORTS.mqtt, PORTS.amqp} & open_ports(address)
        assert served.certifier.renewed == []
        await served.hosts.add(address)


async def test_two_changes_at_once() -> None:
    async with serving() as served:
        address = free_address()
        await asyncio.gather(*(served.hosts.add(address) for _ in range(3)), served.hosts.add("east.example.net"))
        assert served.hosts.bound == [served.address, address]
        assert len(served.certifier.renewed) == 2


@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("192.0.2.1", "is not a loopback address"),
        ("0.0.0.0", "is not a loopback address"),
        ("2001:db8::1", "is not a loopback address"),
        ("::1", "Possible is a name such as hub2.example.net or an address of 127.0.0.0/8"),
        ("east.example.com", "Possible is a name such as east.example.net or an address of 127.0.0.0/8"),
    ],
)
async def test_what_may_not_be_served_on_loopback(host: str, part: str) -> None:
    async with serving() as served:
        with pytest.raises(ArgumentInvalidError) as caught:
            await served.hosts.add(host)
        assert part in caught.value.message
        assert host not in served.hosts.hosts


async def test_on_a_network_an_address_of_this_machine_will_do() -> None:
    async with serving(loopback=False, network="192.0.2.0/24") as served:
        with pytest.raises(ArgumentInvalidError, match=r"this machine has no address 192\.0\.2\.1"):
            await served.hosts.add("192.0.2.1")
        with pytest.raises(ArgumentInvalidError, match="not an address that a client can dial"):
            await served.hosts.add("::")


async def test_what_listens_everywhere_listens_there_too() -> None:
    async with serving(loopback=False, bind="0.0.0.0") as served:
        address = free_address()
        await served.hosts.add(address)
        assert served.hosts.bound == ["0.0.0.0"]
        assert served.certifier.renewed[-1] == {"example.net", served.address, address}
        await served.hosts.remove(address)
        assert open_ports(served.address) == ALL


async def test_hubs_of_earlier_starts() -> None:
    async with serving() as served:
        address = free_address()
        await served.hosts.restore([address, "east.example.net"])
        assert open_ports(address) == ALL
        assert served.certifier.renewed == [{"example.net", "east.example.net", served.address, address}]


async def test_one_that_cannot_be_served_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        address = free_address()
        with caplog.at_level(logging.WARNING, "muster.listener"):
            await served.hosts.restore(["192.0.2.1", address])
        assert "the hub at 192.0.2.1 is not served: 192.0.2.1 is not a loopback address" in caplog.text
        assert open_ports(address) == ALL
        assert "192.0.2.1" not in served.hosts


async def test_nothing_is_renewed_without_hubs() -> None:
    async with serving() as served:
        await served.hosts.restore([])
        assert served.certifier.renewed == []


async def test_an_address_that_may_be_missing() -> None:
    served = Served(free_address(), loopback=True)
    try:
        with pytest.raises(AddressMissingError):
            await served.hosts.open(served.listener, ("192.0.2.1",))
        await served.hosts.open(served.listener, ("192.0.2.1", served.address), optional="192.0.2.1")
        assert served.hosts.bound == [served.address]
        with pytest.raises(PortTakenError):
            await served.hosts.open(served.listener, (served.address,))
    finally:
        await served.listener.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
async def test_loopback_is_never_a_wrong_host(host: str) -> None:
    assert host in Served(free_address(), loopback=True).hosts
