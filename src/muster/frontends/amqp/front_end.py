"""AMQP clients: who serves which link address. Devices, service clients and readers of events share a connection's
shape; what each of their links does is a head of its own (``amqp/links.py``).

Sources: hub-device.md 9.4, hub-service.md 6, 8, dps.md 3.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster.domain.errors import AddressNotFoundError
from muster.frontends.amqp.addresses import parse_address
from muster.frontends.amqp.cbs import open_cbs
from muster.frontends.amqp.claims import ClaimServices
from muster.frontends.amqp.connection import AmqpProtocol, ConnectionServices, address_of
from muster.frontends.amqp.links import LinkContext, LinkOpening, Opener
from muster.frontends.amqp.sasl import SaslExchange
from muster.frontends.listener import Peer
from muster.hub.reports import Reports
from muster.wire.amqp_sessions import Link


@dataclass(frozen=True, slots=True)
class AmqpFrontEnd:
    """Makes the protocol of each connection. ``openers`` are asked in their order; ``$cbs`` is always there."""

    claims: ClaimServices
    reports: Reports
    openers: Sequence[Opener] = ()
    tpm: Callable[[LinkContext], SaslExchange] | None = None

    def protocol(self, peer: Peer) -> AmqpProtocol:
        """A protocol for one connection."""
        return AmqpProtocol(peer, self.connection_services)

    @property
    def connection_services(self) -> ConnectionServices:
        """What a connection asks."""
        return ConnectionServices(
            self.claims, self.claims.clock, self.reports.new_tracking_id, self.open_link, self.tpm
        )

    async def open_link(self, context: LinkContext, link: Link) -> LinkOpening:
        """Judges an attach, as ``OpenLink`` says."""
        text = address_of(link)
        if text is not None:
            address = parse_address(text, context.host)
            for opener in (open_cbs, *self.openers):
                opening = await opener(context, link, address)
                if opening is not None:
                    return opening
        raise AddressNotFoundError(f"The link address '{text or ''}' did not match any of the expected formats.")
