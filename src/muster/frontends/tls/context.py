"""The server's side of TLS 1.2 and 1.3: a context that requests a client certificate and accepts any.

What a certificate is worth is judged later, by the services, on the bytes kept here. Moving bytes is
``muster.frontends.tls.transport``; the reasons for pyOpenSSL and what was measured are in ``docs/tls.md``.
"""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from muster.frontends.tls.records import PublicRecords, record_layer

# All of them are forward secret and authenticated. The client's order decides (no
# OP_CIPHER_SERVER_PREFERENCE): of the two, the device is the one that may lack AES instructions. The CBC
# suites are for embedded stacks without GCM. Security level 0 is about the *peer's* certificate: RSA-1024
# keys and SHA-1 signatures must get through the handshake, so that the refusal is ours and has a reason
# (dps.md 1.9).
_TLS12_CIPHERS = (
    b"ECDHE+AESGCM:ECDHE+CHACHA20:"
    b"ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:"
    b"@SECLEVEL=0"
)

_CLIENT_HELLO = b"\x16\x03"


class ServerTls:
    """Makes the server's half of TLS connections; its one certificate can be replaced while running.

    An instance belongs to one event loop: its connections share a buffer.
    """

    def __init__(self, certificate_chain: bytes, private_key: bytes, *, password: bytes | None = None) -> None:
        """``certificate_chain`` is PEM, the server's own certificate first; ``private_key`` is PEM.

        ValueError when one of them cannot be read or they do not belong together.
        """
        self._context = make_context(certificate_chain, private_key, password)
        self._records = record_layer()

    def replace_certificate(
        self, certificate_chain: bytes, private_key: bytes, *, password: bytes | None = None
    ) -> None:
        """Use this certificate for new handshakes; open connections keep theirs. Raises as ``__init__``."""
        self._context = make_context(certificate_chain, private_key, password)

    def connection(self) -> SSL.Connection:
        """A connection over memory buffers, ready for the first bytes of a client."""
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        return connection

    def records(self, connection: SSL.Connection) -> PublicRecords:
        """The record layer of a connection whose handshake is done."""
        return self._records(connection)


def make_context(certificate_chain: bytes, private_key: bytes, password: bytes | None = None) -> SSL.Context:
    """An OpenSSL context for ``ServerTls``, from PEM. ValueError when the two cannot be used."""
    certificates, key = _load(certificate_chain, private_key, password)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # No session resumes: a resumed session has lost the intermediates that the client sent (libraries.md 2).
    # In TLS 1.3 OpenSSL still sends two tickets, and pyOpenSSL has no call that says "none"; with the cache
    # off nothing redeems them.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection gives its two 16 KiB record buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_TLS12_CIPHERS)
    # Requested, never required, any accepted. No CA names are set, so the list in the request is empty and
    # clients that choose by issuer (Java, .NET) find theirs (dps.md 9.2).
    context.set_verify(SSL.VERIFY_PEER, _accept_any)
    try:
        context.use_certificate(certificates[0])
        for certificate in certificates[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type]  # what is no TLS key is refused by OpenSSL, below
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise ValueError(f"the server's certificate and private key do not belong together: {error}") from error
    return context


def _load(
    certificate_chain: bytes, private_key: bytes, password: bytes | None
) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    try:
        certificates = x509.load_pem_x509_certificates(certificate_chain)
    except ValueError as error:
        raise ValueError(f"the server's certificate chain is not PEM: {error}") from error
    try:
        key = load_pem_private_key(private_key, password)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the server's private key cannot be read: {error}") from error
    return certificates, key


def _accept_any(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int) -> bool:
    return True


def looks_like_tls(first: bytes) -> bool:
    """Whether the first bytes of a connection (at least one) can be a ClientHello."""
    return _CLIENT_HELLO.startswith(first[:2])


def advance_handshake(connection: SSL.Connection) -> bool:
    """Go on with what the client sent so far: True when the handshake is done. SSL.Error when it has failed.

    While OpenSSL verifies a client's chain it leaves errors in the queue of the thread although the callback
    overrules them. If it then waits for more bytes, the wait is reported as one of those errors. So the first
    error is only believed when it comes twice: the second call starts with an empty queue.
    """
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    except SSL.Error as error:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error:
            raise error from None
    return True


def peer_certificates(connection: SSL.Connection) -> tuple[bytes, ...]:
    """What the client sent, as DER, in its order, the leaf first; empty when it sent none.

    On the server's side OpenSSL keeps the leaf apart from the chain.
    """
    leaf = connection.get_peer_certificate()
    if leaf is None:
        return ()
    chain = [leaf, *(connection.get_peer_cert_chain() or ())]
    return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)


def server_name(connection: SSL.Connection) -> str | None:
    """The name the client asked for (SNI), None when it asked for none. The text is the client's: hostile."""
    name = connection.get_servername()
    return None if name is None else name.decode("ascii", "backslashreplace")


def explain(error: SSL.Error) -> str:
    """One line for the log on why a handshake or a connection failed."""
    reasons = [entry[2] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    if not reasons:
        return "the connection broke off" if isinstance(error, SSL.SysCallError) else repr(error)
    text = "; ".join(reasons)
    if "alert" in text and ("unknown ca" in text or "certificate" in text):
        return f"{text} (the client refuses the server's certificate: it must know the CA and dial a name in it)"
    return text
