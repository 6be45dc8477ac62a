"""Logging and counters: one INFO line for each finished operation, never a key, token or body.

Not here: reports of refusals (``hub/reports.py``). ``domain``, ``wire`` and ``pki`` do not log.
"""

import json
import logging
import re
import sys
import time
from collections import Counter

# What announces a secret, also percent-encoded, and what a secret consists of.
_ANNOUNCED = r"""(?<![A-Za-z])sig(?:=|%3[Dd])|SharedAccessKey(?:=|%3[Dd])|[Kk]ey"?\s*[:=]\s*"?"""
_SECRETS = re.compile(rf"({_ANNOUNCED})(?:%[0-9A-Fa-f]{{2}}|[A-Za-z0-9+/=_-])+")
_LONGEST_LINE = 2000
_operations = logging.getLogger("muster.operation")

counters: Counter[str] = Counter()
"""Finished operations by ``name.outcome``, for health and metrics; the same place as the INFO line, so they agree."""


def redact(text: str) -> str:
    """``text`` with signatures and keys replaced."""
    return _SECRETS.sub(r"\1***", text)


def one_line(text: str) -> str:
    """``text`` as a line of the log: ids that clients choose can begin no line of their own, steer no terminal, and
    fill no disk.
    """
    kept = text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + "..."
    if kept.isprintable():
        return kept
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in kept)


class Redaction(logging.Filter):
    """Redacts the finished message of every record, exceptions included, and keeps it on its line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = one_line(redact(record.getMessage()))
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line)


def set_up_logging(level: str, form: str) -> None:
    """Log to standard error as ``text`` or ``json``, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Redaction())
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Operation:
    """One operation from its beginning to its INFO line."""

    __slots__ = ("_name", "_started", "_who")

    def __init__(self, name: str, who: str) -> None:
        self._name = name
        self._who = who
        self._started = time.perf_counter()

    def finished(self, outcome: object, tracking_id: str | None = None) -> None:
        """Write the line: what, who, outcome, duration in ms, tracking id."""
        counters[f"{self._name}.{outcome}"] += 1
        tracking = f" tracking {tracking_id}" if tracking_id else ""
        duration = (time.perf_counter() - self._started) * 1000
        _operations.info("%s %s: %s in %.1f ms%s", self._name, self._who, outcome, duration, tracking)

    def failed(self, tracking_id: str) -> None:
        """The same for an exception that nobody expected, with its trace: call it while handling that exception."""
        self.finished("error", tracking_id)
        _operations.exception("%s %s failed, tracking %s", self._name, self._who, tracking_id)
