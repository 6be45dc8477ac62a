"""How fast AMQP is here: a long log drained over one link, telemetry against MQTT, readers that are behind.

    python -m tests.bench.bench_amqp [--quick] [--rounds 3] [--seconds 3] [--events 1000000]

Prints one JSON object. A server on SQLite gets a core of its own where there are two. What is compared is measured in
turn, round by round, since other things run on the machine: telemetry over MQTT and over AMQP, from the same devices
with the same number of messages on their way; telemetry with and without readers of the log. ``docs/benchmarks.md``
tells more.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.bench.bench_server import Result, enroll, make_devices, run_load, say
from tests.bench.event_log import fill
from tests.bench.processes import pinned, two_cores
from tests.support.fix_server import ID_SCOPE, REPOSITORY, SDK_PYTHON, MusterServer

ADDRESS = "127.0.88.2"
CONNECTIONS = 100
READERS = 5
LAG = "events a second that each lagging reader takes"
WINDOWS = (50, 1)

DRAIN_PER_S = 25_000
TELEMETRY_RATIO = 2.0


class AmqpBenchmark:
    """One run of everything, in a directory that is thrown away afterwards."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory = directory
        self.options = options
        self.server_core, self.load_core = two_cores()
        self.certificates = directory / "certificates"
        self.server = MusterServer(directory / "muster", ADDRESS, "--log-level", "warning")
        self.server.directory.mkdir()
        self.hub = ""

    def run(self) -> Result:
        names = make_devices(self.certificates, CONNECTIONS)
        self._fill()
        with pinned(self.server_core):
            self.server.start()
        try:
            with pinned(self.load_core):
                result = self._facts()
                result |= self._drain()
                enroll(self.server, self.certificates, names)
                self._load("tests.bench.load", "register", "--scope", ID_SCOPE, "--count", str(CONNECTIONS))
                result |= self._telemetry()
                result["lagging readers"] = self._lag()
        finally:
            self.server.stop()
        result["goals"] = goals(result)
        return result

    def _fill(self) -> None:
        """A log that is there before anybody reads: written while the server, which made the tables, does not run."""
        self.server.start()
        self.hub = self.server.status["hubs"][0]["name"]
        self.server.stop()
        say(f"{self.options.events} events into partition 0")
        fill(self.server.data_directory / "muster.db", self.hub, 0, self.options.events)

    def _facts(self) -> Result:
        return {
            "benchmark": "AMQP of muster up on SQLite with synchronous FULL; CPU of the server in µs",
            "muster": version("muster-iot"),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "pinned": self.server_core is not None,
            "load_average": round(os.getloadavg()[0], 2),
            "rounds": self.options.rounds,
        }

    def _load(self, module: str, mode: str, *options: str) -> Result:
        return run_load([sys.executable, "-m", module, mode, *self._place(), *options])

    def _place(self) -> list[str]:
        place = ["--host", ADDRESS, "--ca", str(self.server.ca_file), "--server-pid", str(self.server.pid)]
        return [*place, "--certificates", str(self.certificates)]

    # One link through the whole log

    def _drain(self) -> Result:
        count: int = self.options.events
        say("drain by the raw reader")
        runs = [
            self._load("tests.bench.amqp_load", "drain", "--hub", self.hub, "--count", str(count))
            for _ in range(self.options.rounds)
        ]
        result: Result = {
            "drain": {
                "events": count,
                "per_s": statistics.median(run["per_s"] for run in runs),
                "per_s_of_rounds": [run["per_s"] for run in runs],
                "cpu_us_each": statistics.median(run["server"]["cpu_us_each"] for run in runs),
            }
        }
        if SDK_PYTHON.exists():
            say("drain by azure-eventhub")
            result["drain by azure-eventhub"] = self._drain_by_sdk(min(count, self.options.sdk_events))
        return result

    def _drain_by_sdk(self, count: int) -> Result:
        string = self.server.status["hubs"][0]["eventHubConnectionString"]
        reader = REPOSITORY / "tests" / "bench" / "eventhub_reader.py"
        return run_load([str(SDK_PYTHON), str(reader), string, "0", str(count), str(self.server.ca_file)])

    # Devices

    def _telemetry(self) -> Result:
        result: Result = {}
        for window in WINDOWS:
            runs: dict[str, list[Result]] = {"mqtt": [], "amqp": []}
            for _ in range(self.options.rounds):
                for protocol, found in runs.items():
                    say(f"telemetry over {protocol}, {CONNECTIONS} x window {window}")
                    found.append(self._publish(protocol, window))
            for protocol, found in runs.items():
                result[f"{protocol} {CONNECTIONS} x window {window}"] = summary(found)
            result[f"amqp to mqtt, window {window}"] = ratio(runs["amqp"], runs["mqtt"])
        return result

    def _publish(self, protocol: str, window: int) -> Result:
        module = "tests.bench.load" if protocol == "mqtt" else "tests.bench.amqp_load"
        options = ["--count", str(CONNECTIONS), "--window", str(window), "--seconds", str(self.options.seconds)]
        return self._load(module, "publish", *options)

    def _lag(self) -> Result:
        alone, beside = [], []
        for _ in range(self.options.rounds):
            say("telemetry alone, and beside lagging readers")
            alone.append(self._publish("mqtt", WINDOWS[0]))
            with self._readers():
                beside.append(self._publish("mqtt", WINDOWS[0]))
        return {
            "readers": READERS,
            "alone": summary(alone),
            "beside": summary(beside),
            "beside_to_alone": ratio(beside, alone),
        }

    @contextmanager
    def _readers(self) -> Iterator[None]:
        """Readers with the whole log before them, each as fast as it is told to be and no faster."""
        command = [sys.executable, "-m", "tests.bench.amqp_load", "lag", *self._place(), "--hub", self.hub]
        command += ["--count", str(READERS), "--rate", str(self.options.rate)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit("the lagging readers did not begin")
            yield
            process.stdin.close()
            answer = json.loads(process.stdout.read())
        if not answer["events"]:
            raise SystemExit("the lagging readers read nothing")


def summary(runs: Sequence[Result]) -> Result:
    """Medians of rounds."""
    each = [run["server"]["cpu_us_each"] for run in runs]
    return {
        "cpu_us_each": statistics.median(each),
        "cpu_us_each_of_rounds": each,
        "per_s": round(statistics.median(run["msgs_per_s"] for run in runs)),
        "p50_ms": round(statistics.median(run["lat_us"]["p50"] for run in runs) / 1000, 2),
        "p99_ms": round(statistics.median(run["lat_us"]["p99"] for run in runs) / 1000, 2),
    }


def ratio(runs: Sequence[Result], others: Sequence[Result]) -> Result:
    """The server's CPU for one message against that of the round beside it, as the median of the rounds."""
    pairs = zip(runs, others, strict=True)
    each = [round(one["server"]["cpu_us_each"] / other["server"]["cpu_us_each"], 2) for one, other in pairs]
    return {"ratio": round(statistics.median(each), 2), "of_rounds": each}


def goals(result: Result) -> Result:
    """Each goal with what was measured, and whether it is met."""
    drained = result["drain"]["per_s"]
    rows: Result = {"drain": {"goal": DRAIN_PER_S, "measured": drained, "met": drained >= DRAIN_PER_S}}
    for window in WINDOWS:
        name = f"amqp to mqtt, window {window}"
        measured = result[name]["ratio"]
        rows[name] = {"goal": TELEMETRY_RATIO, "measured": measured, "met": measured <= TELEMETRY_RATIO}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each round of telemetry")
    parser.add_argument("--events", type=int, default=1_000_000, help="in the log that is drained")
    parser.add_argument("--sdk-events", type=int, default=200_000, help="that azure-eventhub reads of them")
    parser.add_argument("--rate", type=float, default=100.0, help=LAG)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.events, options.sdk_events = 1, 1.0, 50_000, 5_000
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as directory:
        print(json.dumps(AmqpBenchmark(Path(directory), options).run(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
