import ipaddress
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from muster.pki.authority import (
    KEY_KINDS,
    AuthorityError,
    Credential,
    create_authority,
    create_device_certificate,
    issue_server_certificate,
    names_outside,
    renew_authority,
)
from muster.pki.certificate import is_self_signed, parse_certificate, read_certificates
from tests.support.fix_pki import DAY, NOW, self_signed

SECOND = 1_000_000
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
ADDRESSES = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
NAMES = ["localhost", "*.azure-devices.localhost"]


def facts(credential):
    return parse_certificate(read_certificates(credential.certificate_pem)[0])


def extension(credential, kind):
    return x509.load_pem_x509_certificate(credential.certificate_pem).extensions.get_extension_for_class(kind)


@pytest.fixture(scope="module")
def authority():
    return create_authority(NAMES, LOOPBACK, NOW)


@pytest.fixture(scope="module")
def server(authority):
    return issue_server_certificate(authority, NAMES, ADDRESSES, NOW)


# --- The CA -------------------------------------------------------------------------------------------------


def test_the_authority_may_sign_certificates_and_nothing_else(authority):
    read = facts(authority)
    assert read.common_name.startswith("Muster development CA ")
    assert (read.is_ca, read.key_usage, read.extended_key_usage) == (True, ("keyCertSign", "cRLSign"), ("serverAuth",))
    assert is_self_signed(read)
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.NameConstraints):
        assert extension(authority, kind).critical
    assert extension(authority, x509.BasicConstraints).value.path_length == 0


def test_the_authority_lives_for_ten_years_from_a_little_before_now(authority):
    read = facts(authority)
    assert read.not_after == NOW // SECOND * SECOND + 3650 * DAY
    assert read.not_before == NOW // SECOND * SECOND - DAY


def test_its_name_constraints_are_what_it_serves(authority):
    constraints = extension(authority, x509.NameConstraints).value
    assert [one.value for one in constraints.permitted_subtrees] == ["localhost", "azure-devices.localhost", *LOOPBACK]
    assert constraints.excluded_subtrees is None


def test_a_kind_of_name_that_is_not_served_is_excluded():
    only_names = extension(create_authority(["localhost"], [], NOW), x509.NameConstraints).value
    every_address = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert [one.value for one in only_names.excluded_subtrees] == every_address
    only_addresses = extension(create_authority([], LOOPBACK, NOW), x509.NameConstraints).value
    assert [one.value for one in only_addresses.excluded_subtrees] == [""]


def test_an_authority_for_nothing_is_refused():
    with pytest.raises(AuthorityError, match="needs a name or a network"):
        create_authority([], [], NOW)


def test_names_are_ascii():
    with pytest.raises(AuthorityError, match="xn--"):
        create_authority(["häuschen.local"], [], NOW)


def test_names_outside(authority):
    pem = authority.certificate_pem
    assert names_outside(pem, ["localhost", "LOCALHOST", "a.b.azure-devices.localhost", "x.localhost"], ADDRESSES) == []
    elsewhere = [ipaddress.ip_address("10.0.0.7"), ipaddress.ip_address("fe80::1")]
    assert names_outside(pem, ["muster.plant", "notlocalhost"], elsewhere) == [
        "muster.plant",
        "notlocalhost",
        "10.0.0.7",
        "fe80::1",
    ]


def test_an_authority_without_constraints_may_certify_everything():
    assert names_outside(self_signed().certificate_pem, ["anything"], ADDRESSES) == []


def test_a_renewed_authority_is_the_same_with_other_limits(authority, server):
    renewed = renew_authority(authority, ["muster.plant"], LOOPBACK, NOW + DAY)
    before, after = facts(authority), facts(renewed)
    assert renewed.key_pem == authority.key_pem
    assert (after.subject, after.serial_number == before.serial_number) == (before.subject, False)
    assert names_outside(renewed.certificate_pem, ["muster.plant"], []) == []
    assert after.not_after == before.not_after + DAY


# --- Server certificates ------------------------------------------------------------------------------------


def test_a_server_certificate_has_every_name_and_address(server):
    names = extension(server, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES
    assert names.get_values_for_type(x509.IPAddress) == ADDRESSES
    read = facts(server)
    assert (read.common_name, read.is_ca) == ("localhost", False)
    assert (read.key_usage, read.extended_key_usage) == (("digitalSignature",), ("serverAuth",))
    assert extension(server, x509.KeyUsage).critical


def test_a_server_certificate_names_its_issuer(authority, server):
    assert facts(server).issuer == facts(authority).subject
    above = extension(authority, x509.SubjectKeyIdentifier).value
    assert extension(server, x509.AuthorityKeyIdentifier).value.key_identifier == above.key_identifier


def test_a_server_certificate_lives_for_at_most_397_days(server):
    assert facts(server).not_after == NOW // SECOND * SECOND + 397 * DAY


def test_a_server_certificate_does_not_outlive_its_authority():
    short = create_authority(["localhost"], [], NOW, days=10)
    assert facts(issue_server_certificate(short, ["localhost"], [], NOW)).not_after == facts(short).not_after


def test_an_expired_authority_issues_nothing():
    short = create_authority(["localhost"], [], NOW, days=10)
    with pytest.raises(AuthorityError, match="has expired"):
        issue_server_certificate(short, ["localhost"], [], NOW + 10 * DAY)


def test_an_authority_issues_nothing_outside_its_limits(authority):
    with pytest.raises(AuthorityError, match=r"may not certify muster\.plant, 10\.0\.0\.7"):
        issue_server_certificate(authority, ["localhost", "muster.plant"], [ipaddress.ip_address("10.0.0.7")], NOW)


def test_a_server_certificate_needs_a_name(authority):
    with pytest.raises(AuthorityError, match="needs a name or an address"):
        issue_server_certificate(authority, [], [], NOW)


def test_a_common_name_is_a_host_name_that_fits_or_none():
    long = f"{'a' * 60}.localhost"
    authority = create_authority(["localhost"], LOOPBACK, NOW)
    assert facts(issue_server_certificate(authority, [long], [], NOW)).common_name == "Muster server"
    assert facts(issue_server_certificate(authority, [long, "localhost"], [], NOW)).common_name == "localhost"


def handshake(authority, server, host, tmp_path):
    """A handshake in memory with a client that verifies as strictly as Python 3.13 does by default."""
    (tmp_path / "server.pem").write_bytes(server.certificate_pem)
    (tmp_path / "server.key").write_bytes(server.key_pem)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    connecting = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    connecting.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = connecting.wrap_bio(to_client, to_server, server_hostname=host)
    served = listening.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, served):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version()


@pytest.mark.parametrize("host", ["localhost", "dps.azure-devices.localhost", "127.0.0.1", "::1"])
def test_a_strict_client_accepts_the_server(authority, server, host, tmp_path):
    assert handshake(authority, server, host, tmp_path) == "TLSv1.3"


@pytest.mark.parametrize("name", [None, "localhost"])
def test_a_strict_client_accepts_names_alone_and_addresses_alone(name, tmp_path):
    names, addresses = ([], ADDRESSES) if name is None else ([name], [])
    authority = create_authority(names, LOOPBACK if addresses else [], NOW)
    server = issue_server_certificate(authority, names, addresses, NOW)
    assert handshake(authority, server, name or "127.0.0.1", tmp_path) == "TLSv1.3"


def test_a_client_refuses_what_the_constraints_forbid(tmp_path):
    """Whoever stole the key could issue it; a client that trusts the CA still refuses."""
    stolen = create_authority(["localhost"], [], NOW)
    unlimited = renew_authority(stolen, ["example.com"], LOOPBACK, NOW)
    forged = issue_server_certificate(unlimited, ["example.com"], ADDRESSES, NOW)
    assert handshake(unlimited, forged, "example.com", tmp_path) == "TLSv1.3"
    for host in ("example.com", "127.0.0.1"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"permitted subtree|excluded subtree"):
            handshake(stolen, forged, host, tmp_path)


def test_openssl_verifies_the_server_strictly(authority, server, tmp_path):
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(tmp_path / "ca.pem")]
    verified = subprocess.run(command, input=server.certificate_pem, capture_output=True, check=False)
    assert verified.stdout == b"stdin: OK\n"


# --- Device certificates ------------------------------------------------------------------------------------


def test_a_device_certificate_is_what_dps_wants():
    read = facts(create_device_certificate("pump-17", NOW, key_kind="ec-p256"))
    assert (read.subject, read.version) == ("CN=pump-17", 3)
    assert (read.is_ca, read.key_usage, read.extended_key_usage) == (False, ("digitalSignature",), ("clientAuth",))
    assert (read.curve, read.signature_hash) == ("P-256", "SHA-256")
    assert is_self_signed(read)
    assert read.not_after == NOW // SECOND * SECOND + 365 * DAY


def test_the_key_is_pkcs8():
    made = create_device_certificate("pump-17", NOW, key_kind="ec-p256")
    assert made.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_key_is_encrypted_with_the_pass_phrase():
    made = create_device_certificate("pump-17", NOW, key_kind="ec-p256", pass_phrase="1234")
    assert made.key_pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    load_pem_private_key(made.key_pem, b"1234")
    with pytest.raises(ValueError):
        load_pem_private_key(made.key_pem, b"4321")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("", {}, "1 to 64 characters, not 0"),
        ("x" * 65, {}, "1 to 64 characters, not 65"),
        ("x", {"pass_phrase": ""}, "1 to 1023 bytes"),
        ("x", {"pass_phrase": "é" * 512}, "1 to 1023 bytes"),
        ("x", {"days": 0}, "at least 1 day"),
        ("x", {"days": 10**7}, "beyond the year 9999"),
        ("x", {"days": 10**12}, "beyond the year 9999"),
        ("x", {"key_kind": "rsa-1024"}, "take rsa-4096 or ec-p256"),
    ],
)
def test_what_cannot_be_certified_is_refused_with_the_reason(name, options, reason):
    with pytest.raises(AuthorityError, match=reason):
        create_device_certificate(name, NOW, **{"key_kind": "ec-p256", **options})


def test_the_kinds_of_keys():
    assert KEY_KINDS == ("rsa-4096", "ec-p256")


def test_a_credential_does_not_show_its_key():
    assert "secret" not in repr(Credential(b"certificate", b"secret"))
