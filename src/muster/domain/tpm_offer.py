"""The keys that a TPM registers with, as they come in a request or in a SASL dialogue. Sources: dps.md 1.3, 3.7.

Not here: what is in them (``tpm.py``).
"""

import base64
import binascii

import msgspec

from muster.domain.errors import ArgumentInvalidError


class TpmOffer(msgspec.Struct, frozen=True, rename="camel"):
    """The keys that a TPM registers with: base64 of TPM2B_PUBLIC structures (dps.md 1.3)."""

    endorsement_key: str = ""
    storage_root_key: str = ""

    def decoded(self) -> tuple[bytes, bytes]:
        """Raises ArgumentInvalidError."""
        try:
            return base64.b64decode(self.endorsement_key, validate=True), base64.b64decode(
                self.storage_root_key, validate=True
            )
        except (binascii.Error, ValueError):
            raise ArgumentInvalidError("tpm.endorsementKey and tpm.storageRootKey are base64.") from None
