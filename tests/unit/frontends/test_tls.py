"""``muster.frontends.tls.context`` and ``tls_records`` between two ends in memory."""

import dataclasses
import functools
from collections.abc import Callable

import pytest
from OpenSSL import SSL

from muster.frontends.tls.context import (
    ServerTls,
    advance_handshake,
    explain,
    looks_like_tls,
    peer_certificates,
    server_name,
)
from muster.frontends.tls.records import MAX_FEED, MAX_PLAIN, DirectRecords, PublicRecords, record_layer
from tests.support import fix_pki
from tests.support.fix_listener import server_identity, server_tls
from tests.support.fix_pki import Identity, PrivateKey
from tests.support.tls_ends import VERSIONS, established, make_client, step, take


@functools.cache
def confusing_chain() -> Identity:
    """A leaf with an issuer of the right name and another RSA key: OpenSSL 3.5 leaves errors behind verifying it."""
    issuers = [Identity(fix_pki.make_certificate("CA", key=key, is_ca=True, usages=None), key) for key in rsa_keys()]
    leaf = fix_pki.make_certificate("dev-01", key=fix_pki.ec_key(), issuer=issuers[0])
    return Identity(leaf, fix_pki.ec_key(), (issuers[1].certificate,))


def rsa_keys() -> tuple[PrivateKey, PrivateKey]:
    return fix_pki.rsa_key(2048), fix_pki.rsa_key(3072)


versions = pytest.mark.parametrize("version", VERSIONS)


@versions
@pytest.mark.parametrize("chunk", [1, 7, 1_000_000])
def test_handshake_takes_any_chunks(version: str, chunk: int) -> None:
    identity = fix_pki.chain_leaf()
    server, _client = established(version, identity, chunk=chunk)
    assert peer_certificates(server) == (identity.certificate, *identity.chain)
    assert server_name(server) == "hub.local"
    assert server.get_protocol_version_name() == f"TLSv{version}"


@versions
def test_a_leaf_sent_twice_is_kept_twice(version: str) -> None:
    leaf = fix_pki.self_signed()
    server, _client = established(version, Identity(leaf.certificate, leaf.key, (leaf.certificate,)))
    assert peer_certificates(server) == (leaf.certificate, leaf.certificate)


@versions
def test_errors_of_verification_do_not_end_the_handshake(version: str) -> None:
    identity = confusing_chain()
    server, _client = established(version, identity, chunk=50)
    assert peer_certificates(server) == (identity.certificate, *identity.chain)


@versions
def test_a_handshake_that_fails_says_why(version: str) -> None:
    server, client = server_tls().connection(), make_client(version)
    step(client)
    hello = bytearray(take(client))
    hello[-3] ^= 0xFF
    server.bio_write(bytes(hello[:5]) + bytes(len(hello) - 5))
    with pytest.raises(SSL.Error) as caught:
        advance_handshake(server)
    assert explain(caught.value) == "unexpected message"


def test_alert_about_our_certificate_is_explained() -> None:
    server, client = server_tls().connection(), make_client("1.2")
    client.set_verify(SSL.VERIFY_PEER)
    step(client)
    server.bio_write(take(client))
    advance_handshake(server)
    client.bio_write(take(server))
    with pytest.raises(SSL.Error):
        client.do_handshake()
    server.bio_write(take(client))
    with pytest.raises(SSL.Error) as caught:
        advance_handshake(server)
    assert "must know the CA" in explain(caught.value)


def test_a_connection_that_breaks_off_is_explained() -> None:
    assert explain(SSL.SysCallError(-1, "Unexpected EOF")) == "the connection broke off"


@pytest.mark.parametrize(
    ("first", "answer"),
    [(b"\x16", True), (b"\x16\x03\x01\x02", True), (b"\x16\x02", False), (b"GET /", False), (b"\x10\x0c", False)],
)
def test_looks_like_tls(first: bytes, answer: bool) -> None:
    assert looks_like_tls(first) is answer


def test_certificate_and_key_must_belong_together() -> None:
    ours, other = server_identity("a"), server_identity("b")
    with pytest.raises(ValueError, match="do not belong together"):
        ServerTls(ours.chain_pem, other.key_pem)


def test_certificate_and_key_must_be_pem() -> None:
    identity = server_identity()
    with pytest.raises(ValueError, match="certificate chain is not PEM"):
        ServerTls(b"no certificate", identity.key_pem)
    with pytest.raises(ValueError, match="private key cannot be read"):
        ServerTls(identity.chain_pem, b"no key")


def test_key_with_a_pass_phrase() -> None:
    identity = dataclasses.replace(server_identity(), pass_phrase="1234")
    ServerTls(identity.chain_pem, identity.key_pem, password=b"1234")
    with pytest.raises(ValueError, match="private key cannot be read"):
        ServerTls(identity.chain_pem, identity.key_pem)


class TestRecords:
    """The same for both record layers."""

    @pytest.fixture(params=["public", "direct"])
    def layer(self, request: pytest.FixtureRequest) -> Callable[[SSL.Connection], PublicRecords]:
        return PublicRecords if request.param == "public" else record_layer()

    @pytest.fixture(params=VERSIONS)
    def ends(
        self, request: pytest.FixtureRequest, layer: Callable[[SSL.Connection], PublicRecords]
    ) -> tuple[PublicRecords, SSL.Connection]:
        server, client = established(request.param)
        if tickets := take(server):
            client.bio_write(tickets)
        return layer(server), client

    @pytest.mark.parametrize("size", [1, 4, MAX_PLAIN - 1, MAX_PLAIN, MAX_PLAIN + 1, 100_000])
    def test_what_is_sent_arrives(self, ends: tuple[PublicRecords, SSL.Connection], size: int) -> None:
        records, client = ends
        message = bytes(range(256)) * (size // 256 + 1)
        client.bio_write(records.send(message[:size]))
        assert receive_all(client) == message[:size]
        client.sendall(message[:size])
        sent = take(client)
        received = [records.receive(sent[start : start + MAX_FEED]) for start in range(0, len(sent), MAX_FEED)]
        assert b"".join(received) == message[:size]
        assert records.end is None

    def test_many_records_at_once_come_in_one_piece(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        for number in range(50):
            client.sendall(b"message %d;" % number)
        assert records.receive(take(client)) == b"".join(b"message %d;" % number for number in range(50))

    def test_half_a_record_is_nothing_yet(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        client.sendall(b"hello")
        sent = take(client)
        assert records.receive(sent[:-1]) == b""
        assert records.receive(sent[-1:]) == b"hello"

    def test_close_notify_ends_after_the_data_before_it(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        client.sendall(b"last words")
        client.shutdown()
        assert records.receive(take(client)) == b"last words"
        assert isinstance(records.end, SSL.ZeroReturnError)

    def test_broken_record_is_the_end(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        client.sendall(b"good")
        good = take(client)
        client.sendall(b"bad")
        bad = take(client)
        assert records.receive(good + bad[:-1] + bytes([bad[-1] ^ 1])) == b"good"
        assert records.end is not None
        assert "bad record mac" in explain(records.end)
        assert records.output()  # the alert
        with pytest.raises(SSL.Error):
            records.send(b"too late")

    def test_garbage_is_the_end(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, _client = ends
        assert records.receive(b"GET / HTTP/1.1\r\n\r\n") == b""
        assert isinstance(records.end, SSL.Error)

    def test_close_says_goodbye_once(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        client.bio_write(records.close())
        with pytest.raises(SSL.ZeroReturnError):
            client.recv(1)
        with pytest.raises(SSL.Error):
            records.send(b"too late")

    def test_errors_left_by_another_connection_do_no_harm(self, ends: tuple[PublicRecords, SSL.Connection]) -> None:
        records, client = ends
        established("1.3", confusing_chain())
        client.sendall(b"hello")
        assert records.receive(take(client)) == b"hello"
        assert records.end is None


def receive_all(connection: SSL.Connection) -> bytes:
    parts = []
    try:
        while True:
            parts.append(connection.recv(100_000))
    except SSL.WantReadError:
        return b"".join(parts)


def test_direct_records_are_taken_with_the_pyopenssl_that_is_locked() -> None:
    server, _client = established("1.3")
    assert isinstance(record_layer()(server), DirectRecords)


def test_public_records_are_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.frontends.tls.records._NEEDED_FUNCTIONS", ("SSL_read_by_another_name",))
    assert record_layer() is PublicRecords
