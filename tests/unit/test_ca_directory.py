import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from muster.ca_directory import CaDirectory, CaDirectoryError, NamedOrder, serial_text
from muster.pki.certificate_profiles import PROFILES
from muster.pki.issuance import Issuer, issue
from muster.pki.private_key import PassPhraseError, write_private_key
from muster.pki.problem import AuthorityError
from muster.pki.revocation import read_revocation_lists
from tests.support.fix_ca import DAY, NOW, intermediate, key, order, root, to_der, to_pem

LINE = ("line-a", intermediate(), "Line A")
ROOT = ("plant", root(), "Plant Root")


def add(directory, name, issuer, *, replace=False, pass_phrase=None):
    with directory.changing():
        return directory.add(name, issuer.chain, write_private_key(issuer.key, pass_phrase), replace=replace)


@pytest.fixture
def directory(tmp_path):
    made = CaDirectory(tmp_path / "ca")
    add(made, "plant", root())
    add(made, "line-a", intermediate())
    return made


@pytest.fixture
def line(directory):
    return directory.authority("line-a")


def issued(directory, authority, *names, now=NOW, **changes):
    orders = [NamedOrder(name, "device", order(name, **changes)) for name in names]
    with directory.changing():
        return authority.issue(orders, authority.open(None), now)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- The CAs ------------------------------------------------------------------------------------------------


def test_everything_is_private(directory, line):
    issued(directory, line, "dev-01")
    with directory.changing():
        line.sign_list(line.open(None), NOW, NOW + DAY)
    paths = [directory.path, *directory.path.rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    assert {mode(path) for path in paths if path.is_file()} == {0o600}


def test_a_ca_is_read_as_it_was_stored(line):
    assert line.chain == intermediate().chain
    assert (line.name, line.is_root) == ("line-a", False)
    assert line.certificate_file.read_bytes() == to_pem(intermediate().certificate)
    opened = line.open(None)
    assert (opened.certificate, opened.above) == (intermediate().certificate, root().chain)


def test_a_key_can_have_a_pass_phrase(tmp_path):
    stored = add(CaDirectory(tmp_path / "ca"), "plant", root(), pass_phrase="1234")
    assert stored.open("1234").key.public_key() == root().key.public_key()
    with pytest.raises(PassPhraseError):
        stored.open(None)


def test_nothing_is_there_at_first(tmp_path):
    nothing = CaDirectory(tmp_path / "ca")
    assert (nothing.authorities(), nothing.issued(), nothing.profiles) == ([], [], PROFILES)
    assert not nothing.path.exists()
    with pytest.raises(CaDirectoryError, match="there is no CA 'x'") as caught:
        nothing.authority("x")
    assert caught.value.advice == "make one: muster ca init"


def test_a_ca_that_is_not_there(directory):
    with pytest.raises(CaDirectoryError) as caught:
        directory.authority("../plant")
    assert caught.value.advice == "there are: line-a, plant"


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".x", "-x", "a b", "x" * 65, "lock", "profiles.toml", "replaced", "crl"]
)
def test_names_that_no_ca_can_have(directory, name):
    with pytest.raises(CaDirectoryError, match="cannot be the name of a CA"):
        add(directory, name, root(), replace=True)


def test_a_ca_is_not_overwritten(directory):
    with pytest.raises(CaDirectoryError, match="there is a CA 'plant'"):
        add(directory, "plant", intermediate())


def test_a_ca_that_is_replaced_is_set_aside(directory, line):
    issued(directory, line, "dev-01")
    old = line.key_file.read_bytes()
    for another in ("Line B", "Line C"):
        stored = add(directory, "line-a", intermediate(another), replace=True)
        assert stored.issued() == []
    assert [one.name for one in directory.authorities()] == ["line-a", "plant"]
    aside = directory.path / "replaced" / f"line-a-{serial_text(intermediate().certificate.serial_number)}"
    assert (aside / "private.key").read_bytes() == old
    assert (aside / "journal.jsonl").exists()
    assert len(list(aside.parent.iterdir())) == 2


def test_what_a_crash_left_behind_does_not_disturb(directory):
    (directory.path / ".new.new").mkdir()
    (directory.path / ".new.new" / "private.key").write_text("half")
    assert add(directory, "new", root()).open(None)


def test_other_directories_may_lie_beside(directory):
    (directory.path / "devices").mkdir()
    assert [one.name for one in directory.authorities()] == ["line-a", "plant"]
    with pytest.raises(CaDirectoryError, match="is no CA"):
        add(directory, "devices", root(), replace=True)


def test_a_damaged_ca_is_told(directory, line):
    (line.folder / "chain.pem").write_text("damaged")
    with pytest.raises(CaDirectoryError, match=r"the CA 'line-a' .* cannot be read"):
        directory.authorities()
    (line.folder / "chain.pem").unlink()
    with pytest.raises(CaDirectoryError, match="cannot be read"):
        directory.authority("line-a")


def test_a_key_that_is_missing_or_another(line):
    line.key_file.write_bytes(write_private_key(key("other")))
    with pytest.raises(AuthorityError, match="does not belong"):
        line.open(None)
    line.key_file.unlink()
    with pytest.raises(CaDirectoryError, match="cannot be read"):
        line.open(None)


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    blocked = CaDirectory(tmp_path / "file")
    with pytest.raises(CaDirectoryError, match="cannot be read"):
        blocked.authorities()
    with pytest.raises(CaDirectoryError, match="cannot be used"), blocked.changing():
        pass


def test_parents(directory, line):
    assert directory.parent(line).name == "plant"
    assert directory.parent(directory.authority("plant")) is None
    alone = Issuer(intermediate().certificate, intermediate().key)
    assert directory.parent(add(directory, "alone", alone)) is None


def test_which_ca_signs(directory, tmp_path):
    assert directory.choose(None).name == "line-a"
    assert directory.choose(None, for_ca=True).name == "plant"
    assert directory.choose("plant").name == "plant"
    add(directory, "line-b", intermediate("Line B"))
    with pytest.raises(CaDirectoryError, match="which CA") as caught:
        directory.choose(None)
    assert caught.value.advice == "say --issuer with one of: line-a, line-b"
    with pytest.raises(CaDirectoryError, match="there is no CA in"):
        CaDirectory(tmp_path / "empty").choose(None)


def test_a_new_certificate_reaches_the_cas_below(directory, line):
    add(directory, "other", root("Other"))
    again = Issuer(issue(order("Plant Root", "intermediate-ca"), root("Top")), key("Plant Root"), root("Top").chain)
    renewed = directory.renew(directory.authority("plant"), again.chain)
    assert renewed.chain == again.chain
    assert directory.authority("line-a").chain == (line.certificate, *again.chain)
    assert directory.parent(directory.authority("line-a")).name == "plant"
    assert directory.authority("other").chain == root("Other").chain


# --- The journal --------------------------------------------------------------------------------------------


def test_what_was_issued(directory, line):
    (made,) = issued(directory, line, "dev-01")
    (found,) = line.issued()
    assert (found.authority, found.name, found.profile, found.time) == ("line-a", "dev-01", "device", NOW)
    assert (found.certificate, found.serial_number) == (to_der(made), made.serial_number)
    assert (found.revocation, found.is_replaced) == (None, False)
    assert directory.issued() == [found]


def test_nothing_is_issued_when_one_order_is_refused(directory, line):
    with pytest.raises(AuthorityError):
        issued(directory, line, "dev-01", "dev 02")
    assert line.issued() == []


def test_a_serial_number_is_used_once(directory, line):
    issued(directory, line, "dev-01")
    for names in (("dev-01",), ("dev-02", "dev-02")):
        with pytest.raises(CaDirectoryError, match="is used already"):
            issued(directory, line, *names)
    assert len(line.issued()) == 1


def test_a_newer_certificate_replaces_until_it_is_revoked(directory, line):
    for number in (5, 6):
        issued(directory, line, "dev-01", serial_number=number)
    issued(directory, line, "dev-02")
    assert [one.is_replaced for one in line.issued()] == [True, False, False]
    with directory.changing():
        line.revoke([6], "keyCompromise", NOW)
        line.revoke([6], "superseded", NOW + DAY)
    older, newer, _ = line.issued()
    assert (older.is_replaced, newer.is_replaced) == (False, False)
    assert (newer.revocation.reason, newer.revocation.time) == ("keyCompromise", NOW)


def test_certificates_are_found_by_name_and_serial_number(directory, line):
    issued(directory, line, "dev-01", serial_number=0xAB12)
    (found,) = line.issued()
    for reference in ("dev-01", "AB12", "ab12", "00:AB:12"):
        assert directory.find(reference) == [found]
    assert directory.find("dev-01", "line-a") == [found]
    assert directory.find("dev-01", "plant") == directory.find("") == directory.find("AB1") == []


def test_lists(directory, line):
    issued(directory, line, "dev-01", "dev-02")
    assert (line.list_number(), line.next_update()) == (0, None)
    with directory.changing():
        line.revoke([line.issued()[0].serial_number], "superseded", NOW)
        for day in (1, 2):
            content = line.sign_list(line.open(None), NOW + day * DAY, NOW + (day + 30) * DAY)
    (found,) = read_revocation_lists(line.list_file.read_bytes())
    assert found.der == content
    assert (found.number, found.this_update) == (2, NOW + 2 * DAY)
    assert [one.reason for one in found.revocations.values()] == ["superseded"]
    assert (line.list_number(), line.next_update()) == (2, NOW + 32 * DAY)


def test_the_journal_is_read_by_people_too(directory, line):
    issued(directory, line, "dev-01", serial_number=7)
    (text,) = (line.folder / "journal.jsonl").read_text().splitlines()
    document = json.loads(text)
    assert (document["event"], document["name"], document["serialNumber"]) == ("issued", "dev-01", "07")


def test_a_line_that_a_crash_cut_off_is_gone(directory, line):
    issued(directory, line, "dev-01")
    journal = line.folder / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[:40])
    assert [one.name for one in line.issued()] == ["dev-01"]
    issued(directory, line, "dev-02")
    assert [one.name for one in line.issued()] == ["dev-01", "dev-02"]
    assert journal.read_bytes().startswith(whole)


@pytest.mark.parametrize("content", [b"damaged\n", b"{}\n", b'{"event": "other"}\n', b"\n"])
def test_a_line_that_is_damaged_is_told(line, content):
    (line.folder / "journal.jsonl").write_bytes(content)
    with pytest.raises(CaDirectoryError, match=r"line 1 of .* cannot be read") as caught:
        line.issued()
    assert "backup" in caught.value.advice


def _issue_some(path, prefix):
    directory = CaDirectory(path)
    authority = directory.authority("line-a")
    for number in range(10):
        issued(directory, authority, f"{prefix}{number}")


def test_those_who_work_at_the_same_time_do_not_disturb_one_another(directory, line):
    """Threads stand for processes: each takes the lock through a descriptor of its own."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda prefix: _issue_some(directory.path, prefix), "ab"))
    names = sorted(one.name for one in line.issued())
    assert names == sorted(f"{prefix}{number}" for prefix in "ab" for number in range(10))


def test_the_lock_is_given_back_after_an_error(directory):
    with pytest.raises(RuntimeError), directory.changing():
        raise RuntimeError
    with directory.changing():
        pass


# --- Profiles -----------------------------------------------------------------------------------------------


def test_profiles_of_the_user(directory):
    (directory.path / "profiles.toml").write_text("[gateway]\nlike = 'device'\ndays = 3\n")
    assert directory.profiles["gateway"].days == 3


@pytest.mark.parametrize("content", [b"[", b"\xff", b"[x]\ndays = 1"])
def test_profiles_that_cannot_be_read(directory, content):
    (directory.path / "profiles.toml").write_bytes(content)
    with pytest.raises(CaDirectoryError, match=r"profiles\.toml"):
        _ = directory.profiles


def test_serial_numbers_as_text():
    assert [serial_text(number) for number in (7, 0xABC, 0x1234)] == ["07", "0ABC", "1234"]
