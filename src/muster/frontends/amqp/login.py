"""The SASL layer of one AMQP connection: each mechanism, and who it lets through. Sources: hub-device.md 9.1, 9.3.

Not here: what a PLAIN login proves (``amqp/claims.py``), the steps of TPM, and how the verdict is sent.
"""

import logging
from collections.abc import Callable

from muster.domain.errors import UnauthorizedAccessError
from muster.frontends.amqp import sasl
from muster.frontends.amqp.links import LinkContext
from muster.hub.hubs import host_without_port
from muster.wire.amqp_performatives import SASL_OK, SaslChallenge, SaslInit, SaslResponse

_log = logging.getLogger("muster.amqp")

BeginExchange = Callable[[LinkContext], sasl.SaslExchange]


class SaslLogin:
    """Takes what the client says. ``tpm`` begins the exchange of the mechanism TPM."""

    def __init__(self, context: LinkContext, tpm: BeginExchange | None) -> None:
        self._context = context
        self._tpm = tpm
        self._exchange: sasl.SaslExchange | None = None

    async def step(self, body: SaslInit | SaslResponse) -> bytes | None:
        """A challenge, or None for success. Raises ServiceError for a refusal."""
        context = self._context
        if isinstance(body, SaslInit):
            if not context.host and body.mechanism != sasl.TPM:
                context.host = context.claims.host = host_without_port(body.hostname or "")
            if body.mechanism == sasl.TPM and self._tpm is not None:
                self._exchange = self._tpm(context)
            elif body.mechanism == sasl.PLAIN:
                await self._log_in(body)
                return None
            elif self._needs_nothing(body.mechanism):
                return None
        if self._exchange is None:
            _log.info("%s: SASL with %r refused", context.describe(), body)
            if isinstance(body, SaslInit):
                await context.claims.refuse(body.mechanism)
            raise UnauthorizedAccessError
        answer = await self._exchange.step(body)
        if isinstance(answer, SaslChallenge):
            return answer.challenge
        if answer.code != SASL_OK:
            raise UnauthorizedAccessError
        return None

    def _needs_nothing(self, mechanism: str) -> bool:
        if mechanism == sasl.EXTERNAL:
            return bool(self._context.peer.certificates)
        return mechanism in (sasl.ANONYMOUS, sasl.MSSBCBS)

    async def _log_in(self, body: SaslInit) -> None:
        plain = sasl.read_plain(body.initial_response)
        if plain is None:
            _log.info("%s: SASL PLAIN with what is neither user nor password", self._context.describe())
            await self._context.claims.refuse(sasl.PLAIN)
            raise UnauthorizedAccessError
        user, password = plain
        await self._context.claims.login(sasl.read_user(user), password)
