"""How often something may be done: rates, their notation, and the rule that counts.

Sources: dps.md 6.10. Not here: which operations are counted, and by whom (``dps/throttles.py``).
"""

import re
from dataclasses import dataclass, replace

from muster.domain.timestamp import SECOND

MAXIMUM_KEYS = 10_000

_MINUTE = 60 * SECOND
_LONGEST_PERIOD = 24 * 60 * _MINUTE
_HIGHEST_COUNT = 1_000_000_000
_NOTATION = re.compile(r"([0-9]{1,10})/([0-9]{0,5})([smh])")
_UNITS = {"s": SECOND, "m": _MINUTE, "h": 60 * _MINUTE}


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` operations in ``period`` microseconds. That many may come at once; then they come back one by one."""

    count: int
    period: int

    def __str__(self) -> str:
        """The notation that ``read_rate`` reads, in the largest unit that fits."""
        unit = next(unit for unit in ("h", "m", "s") if self.period % _UNITS[unit] == 0)
        number = self.period // _UNITS[unit]
        return f"{self.count}/{number if number > 1 else ''}{unit}"


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of a provisioning service; None: any rate. ``operations`` and ``registrations`` count all of a
    service, ``polls`` one device.
    """

    operations: Rate | None = None
    registrations: Rate | None = None
    polls: Rate | None = None


AZURE_RATES = Rates(
    operations=Rate(1000, _MINUTE), registrations=Rate(1000, _MINUTE), polls=Rate(count=5, period=10 * SECOND)
)
"""What Azure documents (dps.md 6.10); an early version of the page had 200 for the first two."""


def read_rate(text: str) -> Rate:
    """``20/s``, ``1000/m`` or ``5/10s`` (s, m, h). Raises ValueError with what is wrong."""
    match = _NOTATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a rate such as 1000/m or 5/10s (units: s, m, h)")
    count, period = int(match[1]), int(match[2] or 1) * _UNITS[match[3]]
    if not 1 <= count <= _HIGHEST_COUNT or not 1 <= period <= _LONGEST_PERIOD:
        raise ValueError(f"{text!r} is out of bound: at least one operation, in one second to a day")
    return Rate(count, period)


def read_rates(text: str) -> Rates:
    """``off``, ``azure``, and single rates after it or alone: ``azure,registrations=20/m``, ``polls=off``.

    Raises ValueError with what is wrong.
    """
    rates = Rates()
    for number, word in enumerate(text.split(",")):
        name, separator, value = word.strip().partition("=")
        if separator and name in Rates.__dataclass_fields__:
            rates = replace(rates, **{name: None if value == "off" else read_rate(value)})
        elif number == 0 and word.strip() in ("azure", "off"):
            rates = AZURE_RATES if word.strip() == "azure" else Rates()
        else:
            names = ", ".join(f"{known}=RATE" for known in Rates.__dataclass_fields__)
            raise ValueError(f"{word.strip()!r} is none of azure, off, {names}; azure and off come first")
    return rates


class Throttle:
    """Counts operations by key and refuses those above a rate.

    A bucket that holds ``count`` and is filled evenly, kept as one number: the time at which it will be full again,
    multiplied by ``count`` to stay whole. Of more keys than ``maximum_keys`` the one that was used least recently is
    forgotten, which counts in its favour.
    """

    def __init__(self, rate: Rate, maximum_keys: int = MAXIMUM_KEYS) -> None:
        self.rate = rate
        self._maximum_keys = maximum_keys
        self._full_at: dict[str, int] = {}

    def take(self, key: str, now: int) -> int | None:
        """Count one operation. None when it may go on; else it was not counted, and the answer is the number of whole
        seconds, at least 1, after which there is room again.
        """
        rate = self.rate
        present, capacity = now * rate.count, rate.period * rate.count
        # A clock that was set back must not keep anybody waiting for longer than one period.
        full_at = max(present, min(self._full_at.pop(key, present), present + capacity))
        late = full_at + rate.period - present - capacity
        if late > 0:
            self._full_at[key] = full_at
            return max(1, -(-late // (rate.count * SECOND)))
        self._full_at[key] = full_at + rate.period
        if len(self._full_at) > self._maximum_keys:
            del self._full_at[next(iter(self._full_at))]
        return None
