import os
import shutil

import pytest

from muster.pki.chain_certificate import ChainCertificate
from muster.pki.known_revocations import is_revoked
from muster.pki.revocation import Revocation, sign_revocation_list, to_pem
from muster.revocation_files import RevocationFiles
from tests.support.fix_ca import DAY, NOW, intermediate, leaf, root, to_der
from tests.support.fix_ca import to_pem as certificates_pem

DEVICE = ChainCertificate(to_der(leaf()))


def crl(*serials, issuer=None, number=1):
    revocations = [Revocation(one, NOW) for one in serials]
    return sign_revocation_list(issuer or intermediate(), revocations, number, NOW + number, NOW + 30 * DAY)


REVOKING, CLEAN = crl(leaf().serial_number), crl(number=2)
CA = certificates_pem(intermediate().certificate)


def revoked(files):
    return is_revoked(files.known().judge([DEVICE], NOW))


def put(path, content):
    """As a new file in place of the old one: no two of them are ever taken for one another."""
    path.parent.mkdir(exist_ok=True, parents=True)
    (path.parent / ".new").write_bytes(content)
    (path.parent / ".new").replace(path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("line.crl", to_pem(REVOKING)),
        ("line.crl", REVOKING),
        ("line.pem", CA + to_pem(crl(issuer=root())) + to_pem(REVOKING)),
        ("line-a/crl.pem", to_pem(REVOKING)),
        ("line-a/LIST.DER", REVOKING),
    ],
)
def test_every_form_in_a_directory(tmp_path, name, content):
    put(tmp_path / "ca" / "line-a.pem", CA)
    put(tmp_path / "ca" / "private.key", b"not looked at")
    put(tmp_path / "ca" / "key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    put(tmp_path / "ca" / "device.pem", certificates_pem(leaf()))
    file = put(tmp_path / "ca" / name, content)
    files = RevocationFiles([tmp_path / "ca"])
    assert files.read() == (True, ())
    assert revoked(files)
    assert {one.source for one in files.known().lists} == {str(file)}
    assert files.read() == (False, ())


def test_named_files(tmp_path):
    files = RevocationFiles(
        [put(tmp_path / "list", REVOKING), put(tmp_path / "ca", to_der(intermediate().certificate))]
    )
    assert files.read() == (True, ())
    assert revoked(files)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "it holds neither a revocation list nor the certificate of a CA"),
        (b"hello", "it holds neither a revocation list nor the certificate of a CA"),
        (certificates_pem(leaf()), "it holds neither a revocation list nor the certificate of a CA"),
        (to_pem(REVOKING)[:-20], "no revocation list"),
        (to_pem(CLEAN) + to_pem(REVOKING)[:-20], "a list in it has no end"),
        (b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", "not a revocation list"),
    ],
)
def test_what_a_named_file_is_refused_for(tmp_path, content, problem):
    file = tmp_path / "line"
    if content is not None:
        put(file, content)
    (found,) = RevocationFiles([file]).read().problems
    assert str(file) in found
    assert problem in found


def test_a_list_of_a_directory_has_to_be_one(tmp_path):
    put(tmp_path / "broken.crl", b"\x30\x00")
    (problem,) = RevocationFiles([tmp_path]).read().problems
    assert "broken.crl cannot be read" in problem


def test_a_change_is_seen(tmp_path):
    put(tmp_path / "line.pem", CA)
    put(tmp_path / "line.crl", REVOKING)
    files = RevocationFiles([tmp_path])
    files.read()
    put(tmp_path / "line.crl", CLEAN)
    assert files.read() == (True, ())
    assert not revoked(files)
    put(tmp_path / "newer.crl", crl(leaf().serial_number, number=3))
    assert files.read() == (True, ())
    assert revoked(files)


@pytest.mark.parametrize("broken", [b"", b"garbage", to_pem(REVOKING)[:100], CA, None])
def test_a_broken_file_keeps_what_it_had(tmp_path, broken):
    put(tmp_path / "line.pem", CA)
    file = put(tmp_path / "line", to_pem(REVOKING))
    files = RevocationFiles([tmp_path, file])
    files.read()
    if broken is None:
        file.unlink()
    else:
        put(file, broken)
    changed, (problem,) = files.read()
    assert (changed, problem.startswith(f"{file} cannot be read: ")) == (False, True)
    assert problem.endswith("the lists that stood in it go on to count")
    assert revoked(files)
    assert files.read() == (False, ()), "told once"
    put(file, to_pem(CLEAN))
    assert files.read() == (True, ())
    assert not revoked(files)


def test_a_file_that_is_taken_out_of_a_directory(tmp_path):
    put(tmp_path / "line.pem", CA)
    file = put(tmp_path / "line.crl", REVOKING)
    files = RevocationFiles([tmp_path])
    files.read()
    file.unlink()
    assert files.read() == (True, (f"{file} is gone: the lists in it do not count any more",))
    assert not revoked(files)


def test_a_directory_that_goes_away_keeps_what_it_had(tmp_path):
    put(tmp_path / "ca" / "line.pem", CA)
    put(tmp_path / "ca" / "line.crl", REVOKING)
    files = RevocationFiles([tmp_path / "ca"])
    files.read()
    shutil.move(tmp_path / "ca", tmp_path / "away")
    changed, problems = files.read()
    assert not changed
    assert f"the directory {tmp_path / 'ca'} cannot be read: No such file or directory" in problems
    assert revoked(files)
    assert files.read() == (False, ())
    shutil.move(tmp_path / "away", tmp_path / "ca")
    put(tmp_path / "ca" / "line.crl", CLEAN)
    assert files.read().problems == ()
    assert not revoked(files)


def test_a_file_is_not_larger_than_it_may_be(tmp_path):
    with (tmp_path / "huge.crl").open("wb") as file:
        os.truncate(file.fileno(), 65 * 1024 * 1024)
    (problem,) = RevocationFiles([tmp_path]).read().problems
    assert "more than 67108864 bytes" in problem
