"""A TPM that proves itself before it asks for anything, as it does in AMQP's SASL layer. Sources: dps.md 3.7, 4.6.

What is shown here is that the client has the TPM whose keys it offers. Whether that TPM is enrolled is judged with its
register request, which can be answered with a reason; a SASL outcome cannot. Not here: the bytes of the dialogue
(``frontends/amqp/tpm.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.check_table import check
from muster.domain.credential import Credential
from muster.domain.device import encode_key
from muster.domain.errors import ArgumentInvalidError, UnauthorizedAccessError
from muster.domain.report import Check, refusals
from muster.domain.sas import MalformedTokenError, check_token, parse_token
from muster.domain.tpm_offer import TpmOffer
from muster.dps.attestations import DeviceLogin
from muster.dps.tpm_challenges import CHALLENGE_KEY_BYTES, TpmChallenges
from muster.hub.authentication import refused_report
from muster.hub.reports import Attempt, Reports


@dataclass(frozen=True, slots=True)
class TpmChallenge:
    """What one TPM was asked: ``blob`` for it, and the key in the blob, as base64, which nobody else has."""

    offer: TpmOffer
    key: str
    blob: bytes


class TpmDialogues:
    """The dialogues with the TPMs of all provisioning services; nothing is stored of them but refusals."""

    def __init__(
        self,
        challenges: TpmChallenges,
        reports: Reports,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._challenges = challenges
        self._reports = reports
        self._clock = clock
        self._entropy = entropy

    async def challenge(self, login: DeviceLogin, offer: TpmOffer, peer: str) -> TpmChallenge:
        """A challenge for the TPM that has these keys. Raises UnauthorizedAccessError, with a stored report, for keys
        that none can be made for.
        """
        key = self._entropy(CHALLENGE_KEY_BYTES)
        try:
            blob = self._challenges.blob(offer, key)
        except ArgumentInvalidError as error:
            fix = "register with a TPM 2.0 that has RSA keys: as endorsement key and as storage root key"
            unusable = check("tpm.endorsement-key", passed=False, detail=error.message, fix=fix)
            raise await self._refusal(login, Credential((), "", peer, offer), (unusable,)) from None
        return TpmChallenge(offer, encode_key(key), blob)

    async def prove(self, login: DeviceLogin, challenge: TpmChallenge, token: str, peer: str) -> Credential:
        """What the TPM has proved itself with. Raises UnauthorizedAccessError, with a stored report, unless ``token``
        is signed with the key of the challenge.
        """
        credential = Credential((), token, peer, challenge.offer)
        checks = self._check(login, challenge, token)
        if refusals(checks):
            raise await self._refusal(login, credential, checks)
        return credential

    def _check(self, login: DeviceLogin, challenge: TpmChallenge, text: str) -> tuple[Check, ...]:
        try:
            token = parse_token(text)
        except MalformedTokenError as error:
            fix = "sign a token with the key of the challenge"
            return (check("sas.format", passed=False, detail=f"the token cannot be read: {error}", fix=fix),)
        path = ("registrations", login.registration_id)
        return check_token(token, (challenge.key,), (login.id_scope,), path, policy=False, now=self._clock())

    async def _refusal(
        self, login: DeviceLogin, credential: Credential, checks: tuple[Check, ...]
    ) -> UnauthorizedAccessError:
        tracking_id = self._reports.new_tracking_id()
        attempt = Attempt(
            "dps", login.id_scope, "connect", login.registration_id, credential.describe(), credential.peer
        )
        told = "SASL outcome 1 (auth)"
        await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), told))
        return UnauthorizedAccessError(tracking_id=tracking_id)
