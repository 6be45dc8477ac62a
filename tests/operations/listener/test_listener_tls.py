"""TLS 1.2 and 1.3 with every kind of client certificate: accepted in the handshake, and kept as it was sent."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.support import fix_pki
from tests.support.fix_listener import (
    Listening,
    Streams,
    client_context,
    connected,
    listening,
    server_identity,
    server_tls,
    tls_of,
)
from tests.support.fix_pki import Identity, PrivateKey

# What is asked here is asked of OpenSSL; the other loop adds nothing.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"


@functools.cache
def tutorial() -> Identity:
    """RSA-4096, self-signed, by the tutorial's command."""
    files = fix_pki.tutorial_files()
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = load_pem_private_key(files.key.read_bytes(), files.pass_phrase.encode())
    return Identity(certificate.public_bytes(Encoding.DER), cast("PrivateKey", key))


@functools.cache
def broken_signature() -> Identity:
    """Self-signed with the signature of another: OpenSSL leaves errors behind when it looks at it."""
    good, other = fix_pki.self_signed("dev-01").certificate, fix_pki.self_signed("dev-02").certificate
    signature = x509.load_der_x509_certificate(good).signature
    return Identity(
        good.replace(signature, signature[:-8] + x509.load_der_x509_certificate(other).signature[-8:]),
        fix_pki.self_signed("dev-01").key,
    )


@functools.cache
def wrong_issuer() -> Identity:
    """Under an intermediate that has the right name and another key."""
    good = fix_pki.chain_leaf()
    impostor = fix_pki.make_certificate("Line A Intermediate", key=fix_pki.ec_key("impostor"), is_ca=True)
    return Identity(good.certificate, good.key, (impostor, good.chain[1]))


KINDS: dict[str, Callable[[], Identity]] = {
    "self-signed RSA-4096": tutorial,
    "EC": fix_pki.self_signed,
    "CA:TRUE leaf": fix_pki.ca_leaf,
    "expired": fix_pki.expired,
    "not yet valid": fix_pki.not_yet_valid,
    "wrong usage": fix_pki.wrong_usage,
    "X.509 v1": fix_pki.version_1,
    "RSA-1024 SHA-1": fix_pki.rsa_1024_sha1,
    "leaf and intermediates": fix_pki.chain_leaf,
    "broken signature": broken_signature,
    "wrong issuer": wrong_issuer,
}

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


async def greet(streams: Streams, greeting: bytes = CONNECT) -> None:
    """Send something and read it back."""
    reader, writer = streams
    writer.write(greeting)
    assert await reader.readexactly(len(greeting)) == greeting


@versions
@pytest.mark.parametrize("kind", KINDS)
async def test_any_certificate_is_accepted_and_kept(kind: str, version: str) -> None:
    identity = KINDS[kind]()
    async with listening() as server, connected(server.address, version, identity) as streams:
        await greet(streams)
        peer = server.served[0].peer
        assert peer.certificates == (identity.certificate, *identity.chain)
        assert peer.tls_version == f"TLSv{version}"


@versions
async def test_no_certificate_is_accepted(version: str) -> None:
    async with listening() as server, connected(server.address, version) as streams:
        await greet(streams)
        assert server.served[0].peer.certificates == ()


@versions
async def test_peer_names_both_ends_and_what_was_dialled(version: str) -> None:
    async with listening() as server, connected(server.address, version, server_name="plant.example") as streams:
        await greet(streams)
        peer = server.served[0].peer
        assert peer.server_name == "plant.example"
        assert peer.local == server.address
        assert peer.remote == streams[1].get_extra_info("sockname")[:2]


async def test_client_without_server_name() -> None:
    async with listening() as server:
        reader, writer = await asyncio.open_connection(*server.address, ssl=client_context(), server_hostname="")
        await greet((reader, writer))
        assert server.served[0].peer.server_name is None
        writer.transport.abort()


@versions
async def test_no_ca_names_are_sent(version: str) -> None:
    async with listening() as server:
        answer = await s_client(server, version)
        assert "No client certificate CA names sent" in answer
        assert "ECDSA+SHA256" in answer.split("Requested Signature Algorithms:")[1]


async def test_sha_1_and_rsa_are_among_the_signatures_asked_for() -> None:
    async with listening() as server:
        asked = (await s_client(server, "1.2")).split("Requested Signature Algorithms:")[1].splitlines()[0]
        assert {"RSA+SHA1", "RSA+SHA256", "RSA-PSS+SHA256", "ECDSA+SHA1"} <= set(asked.strip().split(":"))


@versions
async def test_no_session_resumes(version: str) -> None:
    identity = fix_pki.chain_leaf()
    context = client_context(version, identity)
    async with listening() as server:
        session: ssl.SSLSession | None = None
        for _ in range(3):
            loop = asyncio.get_running_loop()
            first, is_resumed, session = await loop.run_in_executor(None, blocking_visit, server, context, session)
            assert first == CONNECT
            assert not is_resumed
        # What resumption would lose is there every time.
        assert [recorder.peer.certificates for recorder in server.served] == [
            (identity.certificate, *identity.chain)
        ] * 3


async def test_tls_1_2_gives_a_client_nothing_to_resume(tmp_path: Path) -> None:
    async with listening() as server:
        saved = tmp_path / "session.pem"
        assert "New, TLSv1.2" in await s_client(server, "1.2", "-sess_out", str(saved), stdin=b"hello\n", last=b"hello")
        assert not saved.exists()


async def test_tls_1_3_ticket_is_worth_nothing(tmp_path: Path) -> None:
    async with listening() as server:
        saved = str(tmp_path / "session.pem")
        assert "New, TLSv1.3" in await s_client(server, "1.3", "-sess_out", saved, stdin=b"hello\n", last=b"hello")
        assert "New, TLSv1.3" in await s_client(server, "1.3", "-sess_in", saved, stdin=b"hello\n", last=b"hello")


async def test_tls_1_1_is_refused_with_an_alert(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server:
        answer = await s_client(server, "1.1", "-cipher", "DEFAULT@SECLEVEL=0")
        assert "alert protocol version" in answer
        await server.until_idle()
        assert server.listener.counters.failed_handshakes == 1
        assert "unsupported protocol" in caplog.text


async def test_renegotiation_is_refused() -> None:
    async with listening() as server:
        # "R" at the start of a line makes s_client ask for renegotiation.
        answer = await s_client(server, "1.2", stdin=b"R\n", last=b"no renegotiation")
        assert "no renegotiation" in answer
        await server.until_idle()
        assert "RENEGOTIATING" in answer
        assert server.listener.counters.handshakes == 1


async def test_key_update_is_answered() -> None:
    async with listening() as server:
        # "K" makes s_client change its key and ask for the same from the server.
        answer = await s_client(server, "1.3", stdin=b"before\nK\nafter\n", last=b"after")
        assert "before" in answer
        assert "after" in answer


async def test_certificate_can_be_replaced_while_running() -> None:
    tls = server_tls("first")
    async with listening(tls=tls) as server, connected(server.address) as old:
        assert presented(old) == server_identity("first").certificate
        second = server_identity("second")
        tls.replace_certificate(second.chain_pem, second.key_pem)
        async with connected(server.address) as new:
            assert presented(new) == second.certificate
            await greet(new)
        await greet(old)


async def test_server_sends_its_chain() -> None:
    key = fix_pki.ec_key("chained server")
    leaf = fix_pki.make_certificate("hub", key=key, issuer=fix_pki.intermediate(), usages=(fix_pki.SERVER_AUTH,))
    identity = Identity(leaf, key, (fix_pki.intermediate().certificate,))
    async with listening(tls=tls_of(identity)) as server:
        answer = await s_client(server, "1.3", "-showcerts")
        assert answer.count("-----BEGIN CERTIFICATE-----") == 2


async def test_client_that_does_not_trust_us_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server:
        answer = await s_client(server, "1.3", "-verify_return_error", "-verify", "2")
        assert "verify error" in answer
        await server.until_idle()
        assert "must know the CA" in caplog.text


async def test_handshakes_go_on_beside_certificates_that_confuse_openssl() -> None:
    """The errors that a bad chain leaves in OpenSSL's queue must not hit the connections that come next."""
    async with listening() as server:
        for _ in range(3):
            async with (
                connected(server.address, "1.3", broken_signature()) as bad,
                connected(server.address, "1.2", wrong_issuer()) as worse,
                connected(server.address, "1.3", fix_pki.self_signed()) as good,
            ):
                await greet(bad)
                await greet(worse)
                await greet(good)
        assert server.listener.counters.failed_handshakes == 0


def presented(streams: Streams) -> bytes:
    tls: ssl.SSLObject = streams[1].get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) or b""


def blocking_visit(
    server: Listening, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bytes, bool | None, ssl.SSLSession | None]:
    """What comes back, whether the session was resumed, and the session: only ``SSLSocket`` takes one to resume."""
    with (
        socket.create_connection(server.address, timeout=60) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(CONNECT)
        return tls.recv(100), tls.session_reused, tls.session


async def s_client(server: Listening, version: str, *options: str, stdin: bytes = b"", last: bytes = b"") -> str:
    """What ``openssl s_client`` prints; its input stays open until it has printed ``last``."""
    host, port = server.address
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", f"-tls{version.replace('.', '_')}", *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = b""
    async with asyncio.timeout(60):
        for line in stdin.splitlines(keepends=True):
            process.stdin.write(line)
            # s_client takes a command only as the first byte of a read.
            await asyncio.sleep(0.05)
        while last not in output and not process.stdout.at_eof():
            output += await process.stdout.read(4096)
        process.stdin.close()
        output += await process.stdout.read()
        await process.wait()
    return output.decode(errors="replace")
