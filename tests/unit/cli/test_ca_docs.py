"""Every command of docs/ca.md that needs no server runs, in its order, and its tables say what is built in."""

import re
import shlex
from pathlib import Path

from muster.pki.certificate_profiles import PROFILES, CertificateProfile, read_profiles
from muster.pki.certificate_request import request_problems
from muster.pki.key_store import write_pfx
from muster.pki.private_key import KEY_KINDS, write_private_key
from tests.support.fix_ca import intermediate, openssl, root, to_pem

TEXT = (Path(__file__).parents[3] / "docs" / "ca.md").read_text(encoding="utf-8")


def test_the_documented_commands_run(commands):
    (commands.path / "old-root.pem").write_bytes(to_pem(root().certificate))
    (commands.path / "old-root.key").write_bytes(write_private_key(root().key))
    (commands.path / "old-line.pfx").write_bytes(write_pfx("x", intermediate().key, intermediate().chain, "1234"))
    (commands.path / "secret").write_text("1234\n")
    ran = 0
    for line in re.findall(r"^    ((?:muster ca|openssl) .*)$", TEXT, re.MULTILINE):
        program, *words = shlex.split(line)
        if program == "openssl":
            assert openssl(*words).returncode == 0
            continue
        name, *arguments = words[1:]
        assert commands.run(name, *arguments).exit_code == 0, line
        ran += 1
    assert ran == 16
    assert (commands.path / "devices" / "dev-04.fullchain.pem").exists()


def table(heading):
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def test_the_profiles_are_those_that_are_built_in():
    rows = {row[0].strip("`"): row for row in table("Profiles") if len(row) == 8 and row[0].startswith("`")}
    assert set(rows) == set(PROFILES)
    for name, profile in PROFILES.items():
        _, days, key, constraints, usage, purposes, *_ = rows[name]
        assert (int(days), key) == (profile.days, f"`{profile.key}`")
        assert constraints.startswith("CA:TRUE" if profile.ca else "CA:FALSE")
        assert ("path length" in constraints) is (profile.path_length is not None)
        assert usage == ", ".join(profile.key_usage)
        assert purposes == (", ".join(profile.extended_key_usage) or "none")


def test_every_field_of_a_profile_is_described():
    described = {name for row in table("Profiles") if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])}
    assert set(CertificateProfile.__struct_fields__) <= described


def test_the_profiles_of_the_example_are_good():
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert set(read_profiles(example)) - set(PROFILES) == {"gateway", "line-ca"}


def test_every_kind_of_key_is_described():
    assert {kind for row in table("Keys") for kind in re.findall(r"`([a-z0-9-]+)`", row[0])} == set(KEY_KINDS)


def test_every_check_is_described():
    source = Path(request_problems.__code__.co_filename).parent
    modules = [source / "certificate_request.py", source / "certificate_lint.py"]
    modules.append(source.parent / "cli" / "ca_verify.py")
    found = {
        one for module in modules for one in re.findall(r'"((?:csr|certificate|chain)\.[a-z-]+)"', module.read_text())
    }
    assert len(found) > 20
    assert found - set(re.findall(r"`([a-z.-]+)`", TEXT)) == set()
