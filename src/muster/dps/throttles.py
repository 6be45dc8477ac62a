"""The rates of the provisioning services: who asks too often is told when to come again.

Each process counts what it serves, in memory. Off unless rates are given. Sources: dps.md 6.10. Not here: how the
answer looks on a transport (``frontends``).
"""

from collections.abc import Callable

from muster.domain.errors import ThrottledError
from muster.domain.registration_id import registration_id_key
from muster.domain.throttle import Rate, Rates, Throttle


class Throttles:
    """Counts the operations of all provisioning services; every method raises ThrottledError for one too many."""

    def __init__(self, rates: Rates, clock: Callable[[], int]) -> None:
        self._operations = _throttle(rates.operations)
        self._registrations = _throttle(rates.registrations)
        self._polls = _throttle(rates.polls)
        self._clock = clock

    def operation(self, id_scope: str) -> None:
        """A request of a service client, whose right was shown."""
        self._take(self._operations, id_scope.lower(), "operations of the service API")

    def registration(self, id_scope: str) -> None:
        """A register request, before anything is judged: refusing it has to be cheap."""
        self._take(self._registrations, id_scope.lower(), "registrations")

    def poll(self, id_scope: str, registration_id: str) -> None:
        """A device that has proven itself asks for its registration: others cannot use up what it may do."""
        self._take(self._polls, f"{id_scope.lower()}/{registration_id_key(registration_id)}", "polls of one device")

    def _take(self, throttle: Throttle | None, key: str, what: str) -> None:
        if throttle is None:
            return
        seconds = throttle.take(key, self._clock())
        if seconds is not None:
            raise ThrottledError(
                f"The request has been throttled: more {what} than {throttle.rate}. Retry after {seconds} s.",
                retry_after=seconds,
            )


def _throttle(rate: Rate | None) -> Throttle | None:
    return Throttle(rate) if rate is not None else None
