"""TPM attestation: the challenge that a TPM has to solve before its register request counts. Sources: dps.md 4.6.

The first request is answered with a key that only this TPM can unwrap; the second is signed with it. Not here: TPM
structures (``domain/tpm.py``), the HTTP answer, and challenges before any request (``tpm_dialogues.py``).
"""

import base64
import binascii
import hashlib
from collections.abc import Callable

import msgspec

from muster.domain.check_table import check, shell_word, skipped
from muster.domain.credential import Credential
from muster.domain.device import encode_key
from muster.domain.enrollment import Enrollment
from muster.domain.errors import ArgumentInvalidError, TpmChallengeError
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check
from muster.domain.sas import MalformedTokenError, check_token, parse_token
from muster.domain.timestamp import MINUTE
from muster.domain.tpm import TpmKeyFormatError, activation_blob
from muster.domain.tpm_offer import TpmOffer
from muster.dps.attestations import DeviceLogin
from muster.dps.enrollments import Enrollments
from muster.dps.services import ProvisioningService
from muster.store.database import Database, Transaction

CHALLENGE_LIFE = 10 * MINUTE
CHALLENGE_KEY_BYTES = 32


class TpmChallenges:
    """The challenges of all provisioning services."""

    def __init__(
        self, database: Database, enrollments: Enrollments, clock: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._enrollments = enrollments
        self._clock = clock
        self._entropy = entropy

    async def judge(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        login: DeviceLogin,
        credential: Credential,
        offer: TpmOffer,
    ) -> tuple[Check, ...]:
        """The checks of a TPM's request. Raises TpmChallengeError when it is the first of the two,
        ArgumentInvalidError for keys that are none.
        """
        keys = _check_keys(enrollment, offer)
        if any(item.outcome == "refused" for item in keys):
            return (*keys, skipped("sas.signature", "the keys are not those of the enrollment"))
        stored = await self._challenge_key(service.id_scope, login)
        if not credential.token or stored is None:
            raise TpmChallengeError(base64.b64encode(await self._challenge(service.id_scope, login, offer)).decode())
        try:
            token = parse_token(credential.token)
        except MalformedTokenError as error:
            fix = "sign a token with the key of the challenge"
            return (*keys, check("sas.format", passed=False, detail=f"the token cannot be read: {error}", fix=fix))
        path = ("registrations", login.registration_id)
        return (*keys, *check_token(token, (stored,), (login.id_scope,), path, policy=False, now=self._clock()))

    def judge_proven(self, enrollment: Enrollment, offer: TpmOffer) -> tuple[Check, ...]:
        """The checks of a TPM that solved its challenge when it connected."""
        solved = check(
            "sas.signature", passed=True, detail="the TPM signed with the key of its challenge when it connected"
        )
        return (*_check_keys(enrollment, offer), solved)

    async def _challenge_key(self, id_scope: str, login: DeviceLogin) -> str | None:
        row = await self._database.fetch_one(
            "SELECT challenge_key FROM tpm_challenge WHERE id_scope = :id_scope AND registration_key = :key"
            " AND created > :oldest",
            id_scope=id_scope,
            key=registration_id_key(login.registration_id),
            oldest=self._clock() - CHALLENGE_LIFE,
        )
        return row[0] if row else None

    async def _challenge(self, id_scope: str, login: DeviceLogin, offer: TpmOffer) -> bytes:
        key = self._entropy(CHALLENGE_KEY_BYTES)
        blob = self.blob(offer, key)

        async def transaction(tx: Transaction) -> None:
            await tx.execute(
                "INSERT INTO tpm_challenge (id_scope, registration_key, challenge_key, created)"
                " VALUES (:id_scope, :key, :challenge_key, :now) ON CONFLICT (id_scope, registration_key)"
                " DO UPDATE SET challenge_key = excluded.challenge_key, created = excluded.created",
                id_scope=id_scope,
                key=registration_id_key(login.registration_id),
                challenge_key=encode_key(key),
                now=self._clock(),
            )

        await self._database.transact(transaction)
        return blob

    def blob(self, offer: TpmOffer, key: bytes) -> bytes:
        """``key`` wrapped for this TPM. Raises ArgumentInvalidError for keys of a TPM that cannot be used."""
        try:
            return activation_blob(*offer.decoded(), key, self._entropy)
        except TpmKeyFormatError as error:
            raise ArgumentInvalidError(f"The TPM's keys cannot be used: {error}") from None

    async def finished(self, tx: Transaction, id_scope: str, enrollment: Enrollment, key: str, offer: TpmOffer) -> None:
        """The registration is assigned: the challenge is used up, and the storage root key is remembered."""
        await tx.execute(
            "DELETE FROM tpm_challenge WHERE id_scope = :id_scope AND registration_key = :key",
            id_scope=id_scope,
            key=key,
        )
        # The enrollment may have been changed or deleted since the registration began.
        current = await self._enrollments.find_in(tx, id_scope, enrollment.id)
        if current is None or current.mechanism.storage_root_key:
            return
        if _same(current.mechanism.endorsement_key, offer.endorsement_key):
            learned = msgspec.structs.replace(current.mechanism, storage_root_key=offer.storage_root_key)
            await self._enrollments.keep_mechanism(tx, id_scope, current, learned)


def _check_keys(enrollment: Enrollment, offer: TpmOffer) -> tuple[Check, ...]:
    mechanism = enrollment.mechanism
    word = shell_word(enrollment.id, "REGISTRATION-ID")
    endorsement = check(
        "tpm.endorsement-key",
        passed=_same(mechanism.endorsement_key, offer.endorsement_key),
        detail=f"the TPM has the endorsement key {_fingerprint(offer.endorsement_key)},"
        f" enrolled is {_fingerprint(mechanism.endorsement_key)}",
        fix=f"enroll this TPM: muster enrollment update {word} --endorsement-key @EK-FILE, where the file has what"
        " `base64 -w0 ek.pub` prints on the device after `tpm2_readpublic -c 0x81010001 -f tss -o ek.pub`",
    )
    learned = mechanism.storage_root_key
    storage = check(
        "tpm.storage-root-key",
        passed=not learned or _same(learned, offer.storage_root_key),
        detail=f"the TPM has the storage root key {_fingerprint(offer.storage_root_key)}, "
        + (f"enrolled is {_fingerprint(learned)}" if learned else "which is remembered, as the first one"),
        fix="was the TPM cleared, or its storage root key made again? Then enroll it anew: muster enrollment delete"
        f" {word}; muster enrollment create --registration-id {word} --endorsement-key @EK-FILE",
    )
    return (endorsement, storage)


def _fingerprint(key: str) -> str:
    """The beginning of the SHA-256 of a public key: enough to tell two apart."""
    try:
        return f"SHA-256 {hashlib.sha256(base64.b64decode(key, validate=True)).hexdigest()[:16].upper()}"
    except (binascii.Error, ValueError):
        return "that is not base64"


def _same(one: str, other: str) -> bool:
    try:
        return base64.b64decode(one, validate=True) == base64.b64decode(other, validate=True)
    except (binascii.Error, ValueError):
        return False
