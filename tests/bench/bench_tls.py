"""What TLS costs the server: our layer on pyOpenSSL against the standard library's on uvloop. Prints one JSON object.

    python -m tests.bench.bench_tls [--rounds 5] [--seconds 1.0] [--connections 500]

Three servers run side by side and take turns within a round, with nothing behind TLS but a reply of 4 bytes to every
256: ``ours``, ``public`` (ours on pyOpenSSL's public calls alone) and ``stdlib`` (``ssl`` with CERT_REQUIRED and a
known CA, the nearest it can do). Figures are CPU of the server, user and system, in µs: for a full mutual P-256
handshake with its TCP connection and one message, and for a message, one record each, with 1 and with 50 of them in
flight on each of 20 connections. ``idle_kib`` is the growth of the server's proportional set size for an idle
connection. Medians of the rounds, with the lowest and highest.
"""

import argparse
import asyncio
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop
from OpenSSL import SSL

from muster.frontends.listener import Listener, Protocols
from muster.frontends.tls.context import ServerTls
from muster.frontends.tls.records import PublicRecords
from tests.support.fix_pki import SERVER_AUTH, Identity, ec_key, make_certificate

IMPLEMENTATIONS = ("ours", "public", "stdlib")
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
HOST = "127.0.0.1"
MESSAGE, REPLY = bytes(256), b"ack\n"


# The server: a process for each implementation, asked for its CPU and memory over its standard input.


class Acknowledging(asyncio.Protocol):
    """Answers every 256 bytes, all that came at once in one write, as an MQTT server does with its PUBACKs."""

    def __init__(self, _peer: object = None) -> None:
        self._rest = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        count, self._rest = divmod(self._rest + len(data), len(MESSAGE))
        if count:
            self._transport.write(REPLY * count)


async def serve(implementation: str, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    certificate, key = directory / "server.pem", directory / "server.key"
    if implementation == "stdlib":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        server = await loop.create_server(Acknowledging, HOST, 0, ssl=context, backlog=1024)
        port = server.sockets[0].getsockname()[1]
    else:
        tls = ServerTls(certificate.read_bytes(), key.read_bytes())
        if implementation == "public":
            tls._records = PublicRecords
        listener = Listener(Protocols(http=Acknowledging), tls=tls)
        _host, port = await listener.listen(HOST, 0)
    print(port, flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(json.dumps({"cpu": time.process_time(), "pss": proportional_set_size()}), flush=True)


def proportional_set_size() -> int:
    """In KiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Server:
    """The process of one implementation, on the last CPU; the load stays on the first."""

    def __init__(self, implementation: str, directory: Path) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_tls", "--serve", implementation, "--directory", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self.process.pid, {cpus[-1]})
        assert self.process.stdout is not None
        self.address = (HOST, int(self.process.stdout.readline()))

    def ask(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


# The load: blocking sockets, for it is only the server that is measured.


class Client:
    """A TLS connection that can put many records into one write."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.tcp = socket.create_connection(address)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self._until_done(self.tls.do_handshake)

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.tcp.recv(65536))
            else:
                self.flush()
                return result

    def flush(self) -> None:
        if self.outgoing.pending:
            self.tcp.sendall(self.outgoing.read())

    def send(self, count: int) -> None:
        for _ in range(count):
            self.tls.write(MESSAGE)
        self.flush()

    def receive(self, count: int) -> None:
        missing = count * len(REPLY)
        while missing:
            missing -= len(self._until_done(lambda: self.tls.read(65536)))

    def close(self) -> None:
        self.tcp.close()


@contextmanager
def clients(server: Server, context: ssl.SSLContext, count: int) -> Iterator[list[Client]]:
    opened = [Client(server.address, context) for _ in range(count)]
    try:
        for client in opened:
            client.send(1)
            client.receive(1)
        yield opened
    finally:
        for client in opened:
            client.close()


def measure_handshakes(server: Server, context: ssl.SSLContext, seconds: float) -> float:
    before, count, end = server.ask()["cpu"], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client = Client(server.address, context)
        client.send(1)
        client.receive(1)
        client.close()
        count += 1
    return (server.ask()["cpu"] - before) / count * 1e6


def measure_messages(server: Server, context: ssl.SSLContext, seconds: float, window: int) -> float:
    with clients(server, context, 20) as opened:
        before, count, end = server.ask()["cpu"], 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for client in opened:
                client.send(window)
            for client in opened:
                client.receive(window)
            count += window * len(opened)
        return (server.ask()["cpu"] - before) / count * 1e6


def measure_idle(server: Server, context: ssl.SSLContext, connections: int) -> float:
    before = server.ask()["pss"]
    with clients(server, context, connections):
        time.sleep(0.2)
        return (server.ask()["pss"] - before) / connections


def make_contexts(directory: Path) -> dict[str, ssl.SSLContext]:
    """Writes what the servers need into ``directory``; a client's context for each version of TLS."""
    authority = Identity(make_certificate("bench CA", key=ec_key("ca"), is_ca=True, usages=None), ec_key("ca"))
    server_key, client_key = ec_key("server"), ec_key("client")
    server = make_certificate("localhost", key=server_key, issuer=authority, usages=(SERVER_AUTH,))
    client = make_certificate("dev-01", key=client_key, issuer=authority)
    (directory / "ca.pem").write_bytes(authority.certificate_pem)
    Identity(server, server_key).write(directory, "server")
    certificate, key = Identity(client, client_key).write(directory, "client")
    contexts = {}
    for name, version in VERSIONS.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(directory / "ca.pem")
        context.load_cert_chain(certificate, key)
        context.minimum_version = context.maximum_version = version
        contexts[name] = context
    return contexts


def run(rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        contexts = make_contexts(Path(name))
        servers = {implementation: Server(implementation, Path(name)) for implementation in IMPLEMENTATIONS}
        for server in servers.values():
            stack.callback(server.stop)
        for number in range(rounds):
            # Neighbours share the weather: each scenario is run by all before the next begins.
            for scenario, measure in scenarios(contexts, seconds, connections if number == 0 else 0).items():
                for implementation, server in servers.items():
                    figures.setdefault(scenario, {}).setdefault(implementation, []).append(measure(server))
    return {
        "openssl": {"ours": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(), "stdlib": ssl.OPENSSL_VERSION},
        "python": sys.version.split()[0],
        "rounds": rounds,
        "results": {scenario: summary(by_implementation) for scenario, by_implementation in figures.items()},
    }


def scenarios(
    contexts: dict[str, ssl.SSLContext], seconds: float, connections: int
) -> dict[str, Callable[[Server], float]]:
    """What to measure; memory only where ``connections`` says how many: a process gives nothing back."""
    table: dict[str, Callable[[Server], float]] = {}
    if connections:
        table["idle_kib"] = partial(measure_idle, context=contexts["1.3"], connections=connections)
    for version, context in contexts.items():
        table[f"handshake_{version}_us"] = partial(measure_handshakes, context=context, seconds=seconds)
    for window in (1, 50):
        table[f"message_window_{window}_us"] = partial(
            measure_messages, context=contexts["1.3"], seconds=seconds, window=window
        )
    return table


def summary(by_implementation: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in by_implementation.items()}
    result: dict[str, Any] = {
        name: {"median": round(medians[name], 2), "low": round(min(values), 2), "high": round(max(values), 2)}
        for name, values in by_implementation.items()
    }
    result["ours_to_stdlib"] = round(medians["ours"] / medians["stdlib"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--serve", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve, options.directory))
    else:
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[0]})
        json.dump(run(options.rounds, options.seconds, options.connections), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
