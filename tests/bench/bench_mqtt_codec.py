"""How fast is the MQTT core: QoS 1 PUBLISHes in, PUBACKs out, one core, no IO. Prints one JSON object.

    python tests/bench/bench_mqtt_codec.py [--seconds 1.0] [--wire DIRECTORY]

The packet is the one of libraries.md 3 (236 bytes). `bare` is the least that Python can do with such bytes: a loop
without a single check, which says how fast the machine is today. `--wire` names a directory with another build of
`muster.wire` (compiled by mypyc, say) to measure in place of the installed one.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median

ROUNDS = 7
PAYLOAD = b"x" * 190
SAME_TOPIC = b"devices/device-0001/messages/events/unit=C"


def publish(packet_id: int, topic: bytes) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big") + PAYLOAD
    return bytes([0x32, len(body) & 0x7F | 0x80, len(body) >> 7]) + body


def bare(data: bytes) -> bytes:
    """Parses PUBLISHes of a known shape and acknowledges them, believing everything."""
    messages = []
    acknowledgements = []
    position = 0
    while position < len(data):
        body = position + 3
        following = body + (data[position + 1] & 0x7F | data[position + 2] << 7)
        name_end = body + 2 + (data[body] << 8 | data[body + 1])
        packet_id = data[name_end : name_end + 2]
        messages.append((data[body + 2 : name_end], data[name_end + 2 : following], packet_id))
        acknowledgements.append(b"\x40\x02" + packet_id)
        position = following
    return b"".join(acknowledgements)


def core() -> Callable[[bytes], bytes]:
    """What a front end does with a connection of `muster.wire`, as a function."""
    from muster.wire.mqtt_packets import Connect, Publish
    from muster.wire.mqtt_session import MqttSession

    session = MqttSession(0)
    session.receive(Connect("device-0001", keep_alive=60).encode(), 0)
    session.connack()
    session.take_output()

    def receive_and_acknowledge(data: bytes) -> bytes:
        events = session.receive(data, 1)
        session.pubacks([event.packet_id for event in events if type(event) is Publish])
        return session.take_output()

    return receive_and_acknowledge


def packets_per_second(work: Callable[[bytes], bytes], reads: list[bytes], packets: int, seconds: float) -> int:
    rates = []
    for _ in range(ROUNDS):
        done = 0
        started = time.process_time()
        while (elapsed := time.process_time() - started) < seconds / ROUNDS:
            for _ in range(50):
                for data in reads:
                    work(data)
            done += 50 * packets
        rates.append(done / elapsed)
    return round(median(rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time for each figure")
    parser.add_argument("--wire", help="directory with another build of muster.wire")
    options = parser.parse_args()
    if options.wire:
        import muster

        muster.__path__.insert(0, options.wire)
    import muster.wire.mqtt_session

    own_topics = [SAME_TOPIC + b"&%%24.mid=%05d" % number for number in range(20)]
    cases = {
        "1 per read": ([publish(1, SAME_TOPIC)], 1),
        "20 per read": ([b"".join(publish(number + 1, SAME_TOPIC) for number in range(20))], 20),
        "20 per read, each its own topic": ([b"".join(publish(1, topic) for topic in own_topics)], 20),
    }
    wire = core()
    result: dict[str, object] = {
        "benchmark": "MQTT core: QoS 1 PUBLISH parsed, PUBACK written; packets per CPU second",
        "python": sys.version.split()[0],
        "compiled": not str(muster.wire.mqtt_session.__file__).endswith(".py"),
        "packet_bytes": len(publish(1, SAME_TOPIC)),
    }
    for name, (reads, packets) in cases.items():
        result[name] = {
            "core": packets_per_second(wire, reads, packets, options.seconds),
            "bare": packets_per_second(bare, reads, packets, options.seconds),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
