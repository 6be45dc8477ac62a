import re
from pathlib import Path

import pytest

from muster.domain.check_table import CHECKS, Severity, check, quoted, shell_word, skipped, verdict
from muster.domain.errors import (
    CaCertificateNotFoundError,
    InvalidCertificateError,
)
from muster.domain.report import Check, Outcome

DOCUMENT = Path(__file__).parents[3] / "docs" / "checks.md"


def rows():
    """The table of ``docs/checks.md`` as it has to be."""
    return [f"| `{row.id}` | {row.title} | {row.severity} | {row.answer} | {row.evidence} |" for row in CHECKS.values()]


def test_the_documentation_has_the_table_of_the_code():
    documented = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert documented == rows(), "\n" + "\n".join(rows())


def test_ids_are_stable_words():
    assert all(re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", check_id) for check_id in CHECKS)


def test_a_row_that_warns_answers_nothing():
    warning = [row for row in CHECKS.values() if row.severity is Severity.WARN]
    assert {(row.error, row.answer) for row in warning} == {(None, "accepted")}


def test_every_row_that_refuses_says_what_azure_answers():
    assert all(row.answer for row in CHECKS.values())
    assert CHECKS["x509.thumbprint"].answer == "401002 Invalid certificate."
    assert CHECKS["enrollment.enabled"].answer == "202, then 200 with status disabled"


def test_a_check_passes():
    passed = check("x509.version", passed=True, detail="X.509 version 3", fix="not needed")
    assert passed == Check("x509.version", Outcome.PASSED, "X.509 version 3")


def test_a_check_refuses_or_warns_as_its_row_says():
    assert check("x509.thumbprint", passed=False, detail="d", fix="f") == Check(
        "x509.thumbprint", Outcome.REFUSED, "d", "f"
    )
    assert check("x509.version", passed=False, detail="d", fix="f").outcome is Outcome.WARNED


def test_a_check_that_was_skipped():
    assert skipped("x509.thumbprint", "no certificate") == Check("x509.thumbprint", Outcome.SKIPPED, "no certificate")


@pytest.mark.parametrize("make", [lambda: check("x509.nonsense", passed=True, detail=""), lambda: skipped("x", "")])
def test_an_unknown_id_is_a_bug(make):
    with pytest.raises(KeyError):
        make()


def refused(check_id):
    return check(check_id, passed=False, detail="")


def test_the_verdict_is_the_error_of_the_first_refusal():
    warned, passed = refused("x509.version"), check("id-scope.known", passed=True, detail="")
    assert verdict((passed, warned, skipped("x509.common-name", ""))) is None
    first, second = refused("enrollment.exists"), refused("x509.thumbprint")
    assert verdict((warned, first, second)) is CaCertificateNotFoundError
    assert verdict((second, first)) is InvalidCertificateError


def test_a_disabled_enrollment_alone_is_no_error():
    disabled = refused("enrollment.enabled")
    assert verdict((disabled,)) is None
    assert verdict((disabled, refused("x509.not-after"))) is InvalidCertificateError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dev-01", '"dev-01"'),
        ("pumpe-ä", '"pumpe-ä"'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("x" * 200, f'"{"x" * 128}..."'),
        ("", '""'),
    ],
)
def test_quoted_text_is_one_printable_line(text, shown):
    assert quoted(text) == shown


@pytest.mark.parametrize(
    ("identifier", "word"),
    [
        ("dev-01", "dev-01"),
        ("a:b,c.d_e", "a:b,c.d_e"),
        ("$(reboot)", "NAME"),
        ("-rf", "NAME"),
        ("a b", "NAME"),
        ("a\n", "NAME"),
        ("", "NAME"),
        ("x" * 129, "NAME"),
    ],
)
def test_an_id_goes_into_a_command_only_as_a_plain_word(identifier, word):
    assert shell_word(identifier, "NAME") == word
