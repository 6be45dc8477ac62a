"""The SASL mechanism ``TPM``: a device shows that it has the TPM whose keys it names. Sources: dps.md 3.7, 3.8.

::

    device                                            service
    init      00 id scope 00 registration id 00 EK    challenge 00
    response  00 SRK                                  challenge 80 first part of the blob
    response  00                                      challenge C1 second part
    response  00 token                                outcome 0

What is too long for a SASL frame of 512 bytes goes in segments, in either direction: a control byte with bit 7 set, bit
6 in the last one, and a number in the two lowest bits. Not here: the blob, and what the token must be
(``dps/tpm_dialogues.py``).
"""

import base64
from collections.abc import Awaitable, Callable

from muster.domain.credential import Credential
from muster.domain.errors import ArgumentInvalidError
from muster.domain.tpm_offer import TpmOffer
from muster.dps.attestations import DeviceLogin
from muster.dps.tpm_dialogues import TpmChallenge, TpmDialogues
from muster.wire.amqp_performatives import SASL_OK, SaslChallenge, SaslInit, SaslOutcome, SaslResponse

_ZERO = b"\0"
_SEGMENTED, _LAST, _NUMBER = 0x80, 0x40, 0x03
_PART = 470
_MAXIMUM = 4 * 512
"""Bytes that a device may send in segments: two bits number four of them."""


class TpmExchange:
    """The dialogue of one connection. ``proof`` is there when the device has shown its TPM: who it is, and how."""

    def __init__(self, dialogues: TpmDialogues, peer: str) -> None:
        self._dialogues = dialogues
        self._peer = peer
        self._take: Callable[[bytes], Awaitable[SaslChallenge | SaslOutcome]] = self._take_endorsement_key
        self._received = bytearray()
        self._segments = 0
        self._parts: list[bytes] = []
        self.proof: tuple[DeviceLogin, Credential] | None = None

    async def step(self, body: SaslInit | SaslResponse) -> SaslChallenge | SaslOutcome:
        """The answer. Raises ArgumentInvalidError for what is no step of the dialogue, and UnauthorizedAccessError,
        with a stored report, for a TPM that is not the one of these keys.
        """
        data = (body.initial_response if isinstance(body, SaslInit) else body.response) or b""
        if not self._collect(data):
            return SaslChallenge(_ZERO)
        whole = bytes(self._received).removeprefix(_ZERO)  # nothing that is sent begins with one itself
        self._received.clear()
        self._segments = 0
        return await self._take(whole)

    def _collect(self, data: bytes) -> bool:
        """Whether a step is complete with this."""
        control = data[0] if data else 0
        if not control & _SEGMENTED:
            if self._segments:
                raise ArgumentInvalidError("SASL TPM: a segment is missing.")
            self._received += data
            return True
        if control & _NUMBER != self._segments or len(self._received) + len(data) > _MAXIMUM:
            raise ArgumentInvalidError("SASL TPM: a segment is out of turn, or too much.")
        self._segments += 1
        self._received += data[1:]
        return bool(control & _LAST)

    async def _take_endorsement_key(self, content: bytes) -> SaslChallenge | SaslOutcome:
        pieces = content.split(_ZERO, 2)
        try:
            id_scope, registration_id = (piece.decode() for piece in pieces[:2])
            endorsement_key = pieces[2]
        except (ValueError, IndexError):
            raise ArgumentInvalidError("SASL TPM: no id scope, registration id and endorsement key.") from None
        self._login = DeviceLogin(id_scope, registration_id)
        self._endorsement_key = endorsement_key
        self._take = self._take_storage_root_key
        return SaslChallenge(_ZERO)

    async def _take_storage_root_key(self, content: bytes) -> SaslChallenge | SaslOutcome:
        offer = TpmOffer(
            endorsement_key=base64.b64encode(self._endorsement_key).decode(),
            storage_root_key=base64.b64encode(content).decode(),
        )
        self._challenge = await self._dialogues.challenge(self._login, offer, self._peer)
        self._parts = _in_parts(self._challenge)
        return await self._send_part(b"")

    async def _send_part(self, content: bytes) -> SaslChallenge | SaslOutcome:
        if content:
            raise ArgumentInvalidError("SASL TPM: an answer to a part of the challenge.")
        part = self._parts.pop(0)
        self._take = self._send_part if self._parts else self._take_token
        return SaslChallenge(part)

    async def _take_token(self, content: bytes) -> SaslChallenge | SaslOutcome:
        token = content.decode(errors="replace")
        self.proof = self._login, await self._dialogues.prove(self._login, self._challenge, token, self._peer)
        self._take = self._take_more
        return SaslOutcome(SASL_OK)

    async def _take_more(self, content: bytes) -> SaslChallenge | SaslOutcome:
        del content
        raise ArgumentInvalidError("SASL TPM: more behind the token.")


def _in_parts(challenge: TpmChallenge) -> list[bytes]:
    """Exactly two with the keys that every client makes, as one of them insists; more where keys are longer."""
    blob = challenge.blob
    count = max(2, -(-len(blob) // _PART))
    size = -(-len(blob) // count)
    parts = [blob[start : start + size] for start in range(0, len(blob), size)]
    last = len(parts) - 1
    return [bytes((_SEGMENTED | (_LAST if i == last else 0) | i & _NUMBER,)) + part for i, part in enumerate(parts)]
