"""Both ends of a TLS connection in memory: the server's as it is, the client's on pyOpenSSL."""

import contextlib

from cryptography import x509
from OpenSSL import SSL

from muster.frontends.tls.context import advance_handshake
from tests.support.fix_listener import server_tls
from tests.support.fix_pki import Identity

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def make_client(version: str, identity: Identity | None = None) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(VERSIONS[version])
    context.set_max_proto_version(VERSIONS[version])
    context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
    if identity is not None:
        context.use_certificate(x509.load_der_x509_certificate(identity.certificate))
        for certificate in identity.chain:
            context.add_extra_chain_cert(x509.load_der_x509_certificate(certificate))
        context.use_privatekey(identity.key)
    connection = SSL.Connection(context)
    connection.set_tlsext_host_name(b"hub.local")
    connection.set_connect_state()
    return connection


def take(connection: SSL.Connection) -> bytes:
    """What a connection wants to send."""
    try:
        return connection.bio_read(1_000_000)
    except SSL.WantReadError:
        return b""


def step(client: SSL.Connection) -> None:
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()


def shake_hands(server: SSL.Connection, client: SSL.Connection, *, chunk: int = 1_000_000) -> None:
    """Run the handshake; the server gets the client's bytes ``chunk`` by ``chunk``."""
    done = False
    while not done:
        step(client)
        flight = take(client)
        assert flight, "the handshake is stuck"
        for start in range(0, len(flight), chunk):
            server.bio_write(flight[start : start + chunk])
            done = advance_handshake(server)
        if answer := take(server):
            client.bio_write(answer)
    step(client)


def established(
    version: str, identity: Identity | None = None, *, chunk: int = 1_000_000
) -> tuple[SSL.Connection, SSL.Connection]:
    server, client = server_tls().connection(), make_client(version, identity)
    shake_hands(server, client, chunk=chunk)
    return server, client
