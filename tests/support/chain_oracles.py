"""What others say about a chain: OpenSSL, and ``cryptography``'s ClientVerifier over the whole of it."""

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509 import verification
from OpenSSL import crypto


def openssl_verdict(leaf: bytes, untrusted: Sequence[bytes], trusted: Sequence[bytes], now: int) -> str:
    """What ``openssl verify -partial_chain -attime`` says; empty when it accepts. ``now`` is in microseconds."""
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(_openssl(certificate))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(datetime.fromtimestamp(now // 1_000_000, UTC).replace(tzinfo=None))
    context = crypto.X509StoreContext(store, _openssl(leaf), [_openssl(one) for one in untrusted])
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


def _openssl(certificate: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate)


def client_verifier_verdict(leaf: bytes, untrusted: Sequence[bytes], trusted: Sequence[bytes], now: int) -> str:
    """What ClientVerifier says when it asks CAs for nothing but basic constraints; empty when it accepts."""
    everything = verification.ExtensionPolicy.permit_all()
    of_cas = everything.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    policies = verification.PolicyBuilder().extension_policies(ca_policy=of_cas, ee_policy=everything)
    policies = policies.time(datetime.fromtimestamp(now // 1_000_000, UTC).replace(tzinfo=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of serial numbers that the standard forbids
        try:
            loaded = [x509.load_der_x509_certificate(one) for one in (leaf, *untrusted)]
            store = verification.Store([x509.load_der_x509_certificate(one) for one in trusted])
            policies.store(store).build_client_verifier().verify(loaded[0], loaded[1:])
        except (verification.VerificationError, ValueError) as error:
            return str(error) or "refused"
    return ""
