"""PUBACKs in the order of the PUBLISHes they answer, although the work behind them ends in any order.

One client tears down a connection whose PUBACKs are out of order (hub-device.md 3.7). Not here: the work.
"""

from collections import deque
from collections.abc import Sequence


class Owed:
    """The packet ids of PUBLISHes that were read together and are settled together."""

    __slots__ = ("done", "packet_ids")

    def __init__(self, packet_ids: Sequence[int]) -> None:
        self.packet_ids = packet_ids
        self.done = False


class Acknowledgements:
    """What one connection owes."""

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: deque[Owed] = deque()

    def owe(self, packet_ids: Sequence[int]) -> Owed:
        """These will be settled later, and not before all that were owed earlier."""
        owed = Owed(packet_ids)
        self._owed.append(owed)
        return owed

    def settle(self, owed: Owed) -> Sequence[int]:
        """The work is done; the packet ids that may be acknowledged now, in their order."""
        owed.done = True
        waiting = self._owed
        if waiting[0] is not owed:
            return ()
        waiting.popleft()
        if not waiting or not waiting[0].done:
            return owed.packet_ids
        packet_ids = list(owed.packet_ids)
        while waiting and waiting[0].done:
            packet_ids += waiting.popleft().packet_ids
        return packet_ids
