"""Conversations of clients as text: what a client sends, byte for byte, and what it must get.

    > PUT /0ne00000001/registrations/dev-1/register?api-version=2021-06-01 HTTP/1.1
    > Host: global.azure-devices-provisioning.net:443
    >
    > {"registrationId":"dev-1"}
    < HTTP/1.1 202 Accepted
    < Retry-After: 3
    <
    < {"operationId": "<operation>", "status": "assigning"}
    * the registration ends

``>`` is sent, ``<`` must come, ``*`` is done beside the connection. MQTT packets have a line of their own, and below it
what does not fit there: ``user`` and ``password`` of a CONNECT, the payload of a PUBLISH.

    > CONNECT dev-1 clean keep-alive=0
    >   user 0ne00000001/registrations/dev-1/api-version=2021-06-01&ClientVersion=1.15.0
    > PUBLISH 2 $dps/registrations/PUT/iotdps-register/?$rid=1
    >   {"registrationId":"dev-1"}

A PUBLISH with a packet id is one at QoS 1, one without at QoS 0. AMQP is written as ``trace_amqp.py`` says. Headers
that must come are among those that come; the body and every MQTT packet must come as they are written, JSON compared as
JSON. ``<name>`` stands for what a player knows or finds out (``tests/support/replay.py``), ``<space>`` for a space; a
line ``(name)`` for the text of that name in ``answers.toml``. Requests get a Content-Length when they have a body and
no header that says how long it is.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)

CLIENTS = Path(__file__).parents[1] / "playbook" / "clients"
ANSWERS: dict[str, str] = tomllib.loads((CLIENTS / "answers.toml").read_text(encoding="utf-8"))

_AMQP = "AMQP|OPEN|BEGIN|ATTACH|FLOW|TRANSFER|DISPOSITION|DETACH|END|CLOSE|SASL-[A-Z]+"
_FIRST_LINE = re.compile(
    rf"(?P<http>[A-Z]+ /.* HTTP/1\.1|HTTP/1\.1 \d{{3}} .*)|(?P<amqp>{_AMQP})( .*)?|(?P<mqtt>[A-Z]{{6,11}})( .*)?"
)
_NAMED = re.compile(r"\(([a-z ]+)\)")


@dataclass(frozen=True)
class Step:
    """One message or one thing done: its mark and its lines, without the mark."""

    mark: str
    lines: tuple[str, ...]

    @property
    def is_http(self) -> bool:
        match = _FIRST_LINE.fullmatch(self.lines[0])
        return match is not None and match["http"] is not None

    @property
    def is_amqp(self) -> bool:
        match = _FIRST_LINE.fullmatch(self.lines[0])
        return match is not None and match["amqp"] is not None

    def __str__(self) -> str:
        return f"{self.mark} {self.lines[0]}"


def parse(text: str) -> Iterator[Step]:
    """The steps of a conversation. Raises ValueError for a line that is none of its language."""
    mark, lines = "", list[str]()
    for line in text.strip("\n").splitlines():
        if line[:1] not in (">", "<", "*") or line[1:2] not in ("", " "):
            raise ValueError(f"{line!r} begins with none of >, < and *")
        content = line[2:]
        starts = line[0] == "*" or _FIRST_LINE.fullmatch(content) is not None
        if lines and (starts or line[0] != mark):
            yield Step(mark, tuple(lines))
            lines = []
        if not lines and not starts:
            raise ValueError(f"{line!r} belongs to no message")
        mark = line[0]
        lines.append(content)
    if lines:
        yield Step(mark, tuple(lines))


@dataclass(frozen=True)
class HttpMessage:
    """A request or an answer as it is written down."""

    first: str
    headers: tuple[str, ...]
    body: str

    @classmethod
    def of(cls, step: Step) -> "HttpMessage":
        first, *rest = step.lines
        end = rest.index("") if "" in rest else len(rest)
        return cls(first, tuple(rest[:end]), named("\n".join(rest[end + 1 :])))

    def encode(self) -> bytes:
        body = self.body.encode()
        names = {header.partition(":")[0].lower() for header in self.headers}
        length = [f"Content-Length: {len(body)}"] if body and "content-length" not in names else []
        return "\r\n".join([self.first, *self.headers, *length, "", ""]).encode() + body


def mqtt_packet(step: Step) -> Packet:
    """The packet of a step. Raises KeyError for a word that is no packet's, ValueError for words that none has."""
    word, *words = step.lines[0].split()
    return _PACKETS[word](words, [line.strip() for line in step.lines[1:]])


def _connect(words: list[str], below: list[str]) -> Connect:
    client_id, *flags = words
    values = dict(line.split(" ", 1) for line in below)
    password = values.pop("password", None)
    user = values.pop("user")
    numbers = dict(flag.split("=") for flag in flags if "=" in flag)
    keep_alive = int(numbers.pop("keep-alive"))
    if values or numbers or set(flags) - {"clean", f"keep-alive={keep_alive}"}:
        raise ValueError(f"{words} {below} say something that no CONNECT has")
    return Connect(
        client_id,
        username=user,
        password=password.encode() if password else None,
        clean_session="clean" in flags,
        keep_alive=keep_alive,
    )


def _publish(words: list[str], below: list[str]) -> Publish:
    *identifier, topic = words
    packet_id = int(identifier[0]) if identifier else 0
    payload = named("\n".join(below)).replace("<space>", " ")
    return Publish(topic.encode(), payload.encode(), 1 if packet_id else 0, packet_id)


_PACKETS: dict[str, Callable[[list[str], list[str]], Packet]] = {
    "CONNECT": _connect,
    "CONNACK": lambda words, _: Connack(int(words[0])),
    "SUBSCRIBE": lambda words, _: Subscribe(int(words[0]), [(words[1].encode(), int(words[2]))]),
    "SUBACK": lambda words, _: Suback(int(words[0]), [int(code) for code in words[1:]]),
    "UNSUBSCRIBE": lambda words, _: Unsubscribe(int(words[0]), [words[1].encode()]),
    "UNSUBACK": lambda words, _: Unsuback(int(words[0])),
    "PUBLISH": _publish,
    "PUBACK": lambda words, _: Puback(int(words[0])),
    "PINGREQ": lambda _, __: Pingreq(),
    "PINGRESP": lambda _, __: Pingresp(),
    "DISCONNECT": lambda _, __: Disconnect(),
}


def named(text: str) -> str:
    """The text, or that of ``answers.toml`` which it names."""
    match = _NAMED.fullmatch(text.strip())
    return ANSWERS[match[1]].strip() if match else text
