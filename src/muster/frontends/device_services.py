"""What front ends of devices ask of a hub, for MQTT and AMQP alike."""

from collections.abc import Callable
from dataclasses import dataclass

from muster.hub.c2d_messages import C2dMessages
from muster.hub.methods import Methods
from muster.hub.reports import Reports
from muster.hub.sessions import Sessions
from muster.hub.twins import Twins


@dataclass(frozen=True, slots=True)
class DeviceServices:
    """Everything besides keeping telemetry."""

    sessions: Sessions
    twins: Twins
    methods: Methods
    c2d: C2dMessages
    reports: Reports
    clock: Callable[[], int]
