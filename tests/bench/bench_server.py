"""How fast is ``muster up`` here: registrations, telemetry, idle connections, start. Prints one JSON object.

    python -m tests.bench.bench_server [--quick] [--rounds 3] [--seconds 3]

A server on SQLite, as ``muster up`` runs it, gets a core of its own where there are two; the load takes another. What
counts is the server's CPU for one operation, user and system, in µs, as the median of the rounds: a rate says more of
what else the machine does. Messages are of 256 bytes at QoS 1, acknowledged after the commit; registrations are first
ones, by X.509 with a P-256 key, from the TCP connection to *assigned*.

``MUSTER_BENCH_TOOLS`` names a directory with the sources of a load generator (``mqttload.c``) and of a bare TLS
handshake (``tlsfloor.c``), which are compiled then; without it the load is ``tests/bench/load.py`` and the handshake
alone is not measured against OpenSSL in C. ``docs/benchmarks.md`` tells more.
"""

import argparse
import contextlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from muster.frontends.tls.context import ServerTls, advance_handshake
from tests.bench.processes import pinned, two_cores
from tests.support.fix_pki import CLIENT_AUTH, SERVER_AUTH, Identity, ec_key, make_certificate, root
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer
from tests.support.service_client import ServiceClient

ADDRESS = "127.0.88.1"
CONNECTIONS = 100

# µs, KiB and seconds that are aimed at: `docs/benchmarks.md`.
GOALS = {
    "telemetry 100 x window 50": 6.5,
    "telemetry 100 x window 1": 35.0,
    "registration": 1700.0,
    "twin read 100 x window 1": 100.0,
    "twin update 100 x window 1": 80.0,
    "idle connection": 60.0,
    "start": 2.0,
}

Result = dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Loads


class MqttLoad:
    """The load generator in C."""

    name = "mqttload"

    def __init__(self, program: Path, server: MusterServer, certificates: Path) -> None:
        self._command = [
            *(str(program), "--host", ADDRESS, "--port", "8883", "--hub-host", ADDRESS, "--sni", ADDRESS),
            *("--ca", str(server.ca_file), "--cert-dir", str(certificates), "--server-pid", str(server.pid)),
        ]

    def publish(self, count: int, window: int, seconds: float) -> Result:
        return self._run(
            "publish",
            *("--username", "{host}/{device}/?api-version=2021-04-12", "-n", str(count), "--window", str(window)),
            *("--duration", str(seconds), "--warmup", "0.5"),
        )

    def register(self, first: int, count: int) -> Result:
        return self._run(
            "register",
            *("--username", "{scope}/registrations/{device}/api-version=2019-03-31", "--scope", ID_SCOPE, "-n", "16"),
            *("--first", str(first), "--count", str(count), "--poll-ms", "20"),
        )

    def idle(self, count: int) -> Result:
        return self._run(
            "idle",
            *("--username", "{host}/{device}/?api-version=2021-04-12", "-n", str(count), "--ramp", "16"),
            *("--hold", "1", "--duration", "1"),
        )

    def _run(self, mode: str, *options: str) -> Result:
        program, *common = self._command
        return run_load([program, mode, *common, *options])


class PythonLoad:
    """The load of this repository."""

    name = "tests/bench/load.py"

    def __init__(self, server: MusterServer, certificates: Path) -> None:
        self._options = ["--host", ADDRESS, "--ca", str(server.ca_file), "--certificates", str(certificates)]
        self._options += ["--server-pid", str(server.pid)]

    def publish(self, count: int, window: int, seconds: float) -> Result:
        return self._run("publish", "--count", str(count), "--window", str(window), "--seconds", str(seconds))

    def publish_amqp(self, count: int, window: int, seconds: float) -> Result:
        options = ("--count", str(count), "--window", str(window), "--seconds", str(seconds))
        return self._run("publish-amqp", *options)

    def register(self, first: int, count: int) -> Result:
        return self._run("register", "--first", str(first), "--count", str(count), "--scope", ID_SCOPE)

    def idle(self, count: int) -> Result:
        return self._run("idle", "--count", str(count))

    def twin(self, what: str, count: int, seconds: float) -> Result:
        return self._run(what, "--count", str(count), "--seconds", str(seconds))

    def _run(self, mode: str, *options: str) -> Result:
        return run_load([sys.executable, "-m", "tests.bench.load", mode, *self._options, *options])


def run_load(command: Sequence[str]) -> Result:
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        answer: Result = json.loads(result.stdout)
    except ValueError:
        raise SystemExit(f"{command[:3]} failed:\n{result.stdout}\n{result.stderr}") from None
    if answer["errors"]["total"]:
        raise SystemExit(f"{command[:3]} had errors: {answer['errors']}")
    return answer


def build_tool(name: str, directory: Path) -> Path | None:
    """Compile one of the tools; None when their sources are not there."""
    sources = os.environ.get("MUSTER_BENCH_TOOLS")
    source = Path(sources) / f"{name}.c" if sources else None
    if source is None or not source.exists():
        return None
    program = directory / name
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source, "-lssl", "-lcrypto"], check=True)
    return program


# What there is to load it with


def make_devices(directory: Path, count: int) -> list[str]:
    """Certificates and keys of devices under one CA; their names."""
    directory.mkdir()
    names = [f"dev-{number:05}" for number in range(count)]
    for name in names:
        key = ec_key(name)
        device = Identity(make_certificate(name, key=key, issuer=root(), usages=(CLIENT_AUTH,)), key)
        (directory / f"{name}.crt").write_bytes(device.certificate_pem)
        (directory / f"{name}.key").write_bytes(device.key_pem)
    return names


def enroll(server: MusterServer, certificates: Path, names: Sequence[str]) -> None:
    with ServiceClient(server.address, server.ca_file.read_text(), DEVELOPMENT_KEY) as client:
        for name in names:
            client.enroll(name, (certificates / f"{name}.crt").read_text())


# Handshakes alone


def bare_handshake(certificates: Path, seconds: float) -> float:
    """CPU of the server's side of a mutual TLS 1.3 handshake in µs, in memory, with nothing behind it."""
    key = ec_key("bench server")
    server = Identity(make_certificate("localhost", key=key, issuer=root(), usages=(SERVER_AUTH,)), key)
    tls = ServerTls(server.certificate_pem, server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificates / "dev-00000.crt", certificates / "dev-00000.key")
    spent, count = 0, 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        spent += one_handshake(tls, context)
        count += 1
    return round(spent / count / 1000, 1)


def one_handshake(tls: ServerTls, context: ssl.SSLContext) -> int:
    """Nanoseconds of CPU that the server's side took."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    spent = -time.thread_time_ns()
    connection = tls.connection()
    spent += time.thread_time_ns()
    done = False
    while not done:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        sent = outgoing.read()
        spent -= time.thread_time_ns()
        connection.bio_write(sent)
        done = advance_handshake(connection)
        try:
            answer = connection.bio_read(65536)
        except SSL.WantReadError:
            answer = b""
        spent += time.thread_time_ns()
        incoming.write(answer)
    return spent


def floor_handshake(tool: Path, certificates: Path, seconds: float) -> Result:
    """The same by OpenSSL's own C, of whatever version the tool was built with."""
    pki = certificates.parent
    identity = Identity(
        make_certificate(ADDRESS, key=ec_key("floor"), issuer=root(), usages=(SERVER_AUTH,)), ec_key("floor")
    )
    (pki / "floor.crt").write_bytes(identity.certificate_pem)
    (pki / "floor.key").write_bytes(identity.key_pem)
    (pki / "root.crt").write_bytes(root().certificate_pem)
    command = [str(tool), "handshake", "--ca", str(pki / "root.crt"), "--tls", "1.3", "--seconds", str(seconds)]
    command += ["--scert", str(pki / "floor.crt"), "--skey", str(pki / "floor.key")]
    command += ["--ccert", str(certificates / "dev-00000.crt"), "--ckey", str(certificates / "dev-00000.key")]
    answer: Result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


# The benchmark


def summary(runs: Sequence[Result], rate: str) -> Result:
    """Medians of rounds: the rate, the server's CPU for one operation, and how long one took."""
    each = [run["server"]["cpu_us_each"] for run in runs]
    return {
        "cpu_us_each": statistics.median(each),
        "cpu_us_each_of_rounds": each,
        "per_s": round(statistics.median(run[rate] for run in runs)),
        "server_cpu_s": round(sum(cpu_of(run) for run in runs), 2),
        "p50_ms": round(statistics.median(run["lat_us"]["p50"] for run in runs) / 1000, 2),
        "p99_ms": round(statistics.median(run["lat_us"]["p99"] for run in runs) / 1000, 2),
    }


def cpu_of(run: Result) -> float:
    server = run["server"]
    return float(server["cpu_s"] if "cpu_s" in server else server["user_s"] + server["sys_s"])


class Benchmark:
    """One run of everything, in a directory that is thrown away afterwards."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory = directory
        self.options = options
        self.server_core, self.load_core = two_cores()
        self.certificates = directory / "certificates"
        self.server = MusterServer(directory / "muster", ADDRESS, "--log-level", "warning")
        self.server.directory.mkdir()
        self.mqttload = build_tool("mqttload", directory)
        self.tlsfloor = build_tool("tlsfloor", directory)

    def run(self) -> Result:
        rounds: int = self.options.rounds
        each: int = self.options.devices // rounds
        say(f"{each * rounds} certificates")
        names = make_devices(self.certificates, each * rounds)
        starts = [self._start() for _ in range(rounds)]
        try:
            say("enrollments")
            enroll(self.server, self.certificates, names)
            load = self._load()
            result = self._facts(load.name)
            result["start"] = {"seconds": round(statistics.median(starts), 2)}
            with pinned(self.load_core):
                result |= self._measure(load, each, rounds)
            self._start()  # what was freed before would be taken for connections
            with pinned(self.load_core):
                result["idle connection"] = self._measure_idle(self._load(), len(names))
        finally:
            self.server.stop()
        result["handshake alone"] = self._handshakes(result)
        result["goals"] = goals(result)
        return result

    def _start(self) -> float:
        if self.server.running:
            self.server.stop()
        with pinned(self.server_core):
            self.server.start()
        return self.server.ready_seconds

    def _load(self) -> MqttLoad | PythonLoad:
        if self.mqttload is None:
            return PythonLoad(self.server, self.certificates)
        return MqttLoad(self.mqttload, self.server, self.certificates)

    def _facts(self, load: str) -> Result:
        return {
            "benchmark": "muster up on SQLite with synchronous FULL; CPU of the server in µs",
            "muster": version("muster-iot"),
            "python": platform.python_version(),
            "openssl": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
            "load": load,
            "cores": os.cpu_count(),
            "pinned": self.server_core is not None,
            "load_average": round(os.getloadavg()[0], 2),
            "rounds": self.options.rounds,
        }

    def _measure(self, load: MqttLoad | PythonLoad, each: int, rounds: int) -> Result:
        def repeat(name: str, run: Callable[[int], Result]) -> list[Result]:
            say(name)
            return [run(number) for number in range(rounds)]

        seconds: float = self.options.seconds
        result: Result = {}
        runs = repeat("registration", lambda number: load.register(number * each, each))
        result["registration"] = summary(runs, "per_s")
        for count, window in ((CONNECTIONS, 50), (CONNECTIONS, 1), (1, 1)):
            name = f"telemetry {count} x window {window}"
            runs = repeat(name, lambda _, count=count, window=window: load.publish(count, window, seconds))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
            result[name] = summary(runs, "msgs_per_s")
        own = PythonLoad(self.server, self.certificates)
        for what in ("twin-read", "twin-update"):
            name = f"{what.replace('-', ' ')} {CONNECTIONS} x window 1"
            runs = repeat(name, lambda _, what=what: own.twin(what, CONNECTIONS, seconds))  # type: ignore[misc]  # as above
            result[name] = summary(runs, "per_s")
        return result | self._measure_amqp()

    def _measure_amqp(self) -> Result:
        """Telemetry over AMQP, and over MQTT by the same load, which is slower than the one in C."""
        load = PythonLoad(self.server, self.certificates)
        seconds: float = self.options.seconds
        result: Result = {}
        ratios: Result = {}
        for window in (50, 1):
            name = f"AMQP telemetry {CONNECTIONS} x window {window}"
            say(name)
            rounds = range(self.options.rounds)
            mqtt, amqp = zip(
                *[
                    (load.publish(CONNECTIONS, window, seconds), load.publish_amqp(CONNECTIONS, window, seconds))
                    for _ in rounds
                ],
                strict=True,
            )
            result[name] = summary(amqp, "msgs_per_s")
            cost = summary(mqtt, "msgs_per_s")["cpu_us_each"]
            ratios[f"window {window}"] = round(result[name]["cpu_us_each"] / cost, 2)
        return result | {"AMQP to MQTT": ratios}

    @staticmethod
    def _measure_idle(load: MqttLoad | PythonLoad, connections: int) -> Result:
        say("idle connection")
        return {"connections": connections, "kib_each": load.idle(connections)["server"]["kib_per_connection"]}

    def _handshakes(self, result: Result) -> Result:
        registration = result["registration"]["cpu_us_each"]
        with pinned(self.server_core):
            bare = bare_handshake(self.certificates, self.options.seconds)
            alone: Result = {"our_layer_us": bare, "registration_to_our_layer": round(registration / bare, 2)}
            if self.tlsfloor is not None:
                floor = floor_handshake(self.tlsfloor, self.certificates, self.options.seconds)
                alone["tlsfloor_openssl"] = floor["openssl"]
                alone["tlsfloor_us"] = floor["server_us"]
                alone["registration_to_tlsfloor"] = round(registration / floor["server_us"], 2)
        return alone


def goals(result: Result) -> Result:
    """Each goal with what was measured, and whether it is met."""
    measured = {
        name: next(result[name][key] for key in ("cpu_us_each", "kib_each", "seconds") if key in result[name])
        for name in GOALS
    }
    return {
        name: {"goal": goal, "measured": measured[name], "met": measured[name] <= goal} for name, goal in GOALS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second each, to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each round of telemetry")
    parser.add_argument("--devices", type=int, default=999, help="that register, and are connected idly afterwards")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.devices = 1, 1.0, 150
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as directory:
        print(json.dumps(Benchmark(Path(directory), options).run(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
