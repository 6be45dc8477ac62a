"""Issuances: certificates from a CA of Muster's own for devices that sent a signing request. Sources: dps.md 1.3, 1.5.

All who wait together are served by one turn in a thread: one lock, one look at the journal, one write. A serial number
is issued once: whoever asks again for it, after a crash perhaps, gets the certificate that stands in the journal. Not
here: whether a request is fit to be asked for (``domain/csr.py``), and what follows (``assignments.py``).
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.ca_directory import CaDirectory, CaDirectoryError, StoredAuthority
from muster.domain.csr import certified_name
from muster.domain.errors import CertificateIssuanceFailedError
from muster.pki.certificate_order import order_for_request, validity
from muster.pki.certificate_profiles import CertificateProfile, ProfileError, find_profile
from muster.pki.certificate_request import parse_certificate_request
from muster.pki.issuance import Issuer, issue
from muster.pki.private_key import PassPhraseError, PrivateKeyError
from muster.pki.problem import AuthorityError, Problem

MAXIMUM_TURN = 64
"""How many are served in one turn, so that the first of a storm need not wait for the last."""

_ISSUED = "csr.issued"
_authority = attrgetter("authority")

Chain = tuple[bytes, ...]
"""DER, the device's certificate first, the root last."""


class IssuanceOrder(msgspec.Struct, frozen=True):
    """What a registration asks of a CA: its name, a profile, for whom, the request as DER, and the serial number (hex)
    under which the certificate is known from the beginning. ``former``: the device asked as it did in the preview of
    2021-11-01, and is answered so.
    """

    authority: str
    profile: str
    registration_id: str
    request: bytes
    serial_number: str
    former: bool = False


_Waiting = tuple[IssuanceOrder, "asyncio.Future[Chain]"]
_Outcome = Chain | CertificateIssuanceFailedError


class Issuances:
    """The CAs in one directory, which may appear, change and go while this serves."""

    def __init__(self, directory: Path, clock: Callable[[], int]) -> None:
        self._directory = directory
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._turns: asyncio.Task[None] | None = None

    async def issue(self, order: IssuanceOrder) -> Chain:
        """The certificate with its chain; on the disk before anybody has it. Raises CertificateIssuanceFailedError."""
        future: asyncio.Future[Chain] = asyncio.get_running_loop().create_future()
        self._waiting.append((order, future))
        if self._turns is None or self._turns.done():
            self._turns = asyncio.get_running_loop().create_task(self._take_turns())
        return await future

    async def _take_turns(self) -> None:
        outcomes: Sequence[Chain | Exception]
        while self._waiting:
            turn, self._waiting = self._waiting[:MAXIMUM_TURN], self._waiting[MAXIMUM_TURN:]
            try:
                outcomes = await asyncio.to_thread(self._issue_all, [order for order, _ in turn], self._clock())
            except (OSError, CaDirectoryError) as error:
                outcomes = [_failed(order, str(error)) for order, _ in turn]
            except Exception as error:  # noqa: BLE001 - those who wait are told, and their operations end as failed
                outcomes = [error] * len(turn)
            _settle(turn, outcomes)

    def _issue_all(self, orders: Sequence[IssuanceOrder], now: int) -> list[_Outcome]:
        """In a thread. Raises OSError and CaDirectoryError when the directory cannot be used at all."""
        outcomes: dict[str, _Outcome] = {}
        directory = CaDirectory(self._directory)
        if not self._directory.exists():
            raise CaDirectoryError(f"there is no CA directory {self._directory}")
        with directory.changing():
            for name, group in itertools.groupby(sorted(orders, key=_authority), _authority):
                wanted = {order.serial_number: order for order in group}
                try:
                    outcomes.update(_Desk(directory, name).serve(list(wanted.values()), now))
                except PassPhraseError:
                    reason = f"the key of the CA {name!r} is encrypted, and the server has no pass phrase for it"
                    advice = "use a CA whose key has no pass phrase: an intermediate made for this"
                    outcomes.update({number: _failed(one, reason, advice) for number, one in wanted.items()})
                except (CaDirectoryError, PrivateKeyError, AuthorityError, OSError) as error:
                    advice = getattr(error, "advice", "")
                    outcomes.update({number: _failed(one, str(error), advice) for number, one in wanted.items()})
        return [outcomes[order.serial_number] for order in orders]


class _Desk:
    """One CA at work; the lock of its directory is held."""

    def __init__(self, directory: CaDirectory, name: str) -> None:
        """Raises CaDirectoryError, PrivateKeyError and AuthorityError."""
        self._directory = directory
        self._authority: StoredAuthority = directory.authority(name)
        self._issuer: Issuer = self._authority.open(None)

    def serve(self, orders: Sequence[IssuanceOrder], now: int) -> dict[str, _Outcome]:
        """Raises CaDirectoryError and OSError when nothing could be written; then nothing was issued."""
        known = {one.serial_number: one.certificate for one in self._authority.issued()}
        outcomes: dict[str, _Outcome] = {}
        made: list[tuple[str, str, x509.Certificate]] = []
        for order in orders:
            certificate = known.get(int(order.serial_number, 16))
            if certificate is None:
                try:
                    new = self._sign(order, now)
                except (AuthorityError, ProfileError, CaDirectoryError) as error:
                    outcomes[order.serial_number] = _refused(order, error)
                    continue
                made.append((order.registration_id, order.profile, new))
                certificate = _der(new)
            outcomes[order.serial_number] = (certificate, *map(_der, self._issuer.chain))
        if made:
            self._authority.record(made, now)
        return outcomes

    def _sign(self, order: IssuanceOrder, now: int) -> x509.Certificate:
        profile: CertificateProfile = find_profile(self._directory.profiles, order.profile)
        if profile.ca:
            raise ProfileError(f"the profile {order.profile!r} is one for CAs, and not for devices")
        request = parse_certificate_request(order.request)
        name = certified_name(request, order.registration_id)
        valid = validity(now, profile.days, self._issuer.certificate)
        return issue(order_for_request(request, profile, name, valid, int(order.serial_number, 16)), self._issuer)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _settle(turn: Sequence[_Waiting], outcomes: Sequence[Chain | Exception]) -> None:
    for (_, future), outcome in zip(turn, outcomes, strict=True):
        if future.done():
            continue  # who waited was cancelled; what was issued stands in the journal
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _failed(order: IssuanceOrder, reason: str, advice: str = "") -> CertificateIssuanceFailedError:
    """What the operator has to put right: the device is not told what there is on the server."""
    fix = advice or "let the enrollment name a CA of the server: muster ca list --ca-dir DIRECTORY"
    return CertificateIssuanceFailedError(
        f"Certificate issuance failed: the certificate authority {order.authority!r} cannot issue.",
        (Problem(_ISSUED, reason, fix),),
    )


def _refused(order: IssuanceOrder, error: AuthorityError | ProfileError | CaDirectoryError) -> _Outcome:
    problems = error.problems if isinstance(error, AuthorityError) else ()
    if not problems:
        return _failed(order, str(error), getattr(error, "advice", ""))
    named = tuple(one if one.id.startswith("csr.") else one._replace(id=_ISSUED) for one in problems)
    return CertificateIssuanceFailedError(f"Certificate issuance failed: {error}.", named)
