import shutil
import subprocess

import pytest

from muster.cli.env import Shell, render_exports, trust_variables
from tests.unit.cli.statuses import status_document

AWKWARD = '/tmp/it\'s a $(touch pwned) `dir`\\ "x" \u2018y\u2019;&|\n*/ca.pem'


def test_bundles_go_where_trust_is_replaced_and_the_ca_where_it_is_added():
    variables = trust_variables(status_document("/d"))
    assert variables["SSL_CERT_FILE"] == variables["REQUESTS_CA_BUNDLE"] == "/d/trust.pem"
    assert variables["NODE_EXTRA_CA_CERTS"] == "/d/ca.pem"


def test_a_posix_shell_gets_back_what_went_in():
    script = render_exports({"VALUE": AWKWARD}, Shell.POSIX) + '\nprintf %s "$VALUE"'
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout == AWKWARD


def test_eval_of_the_output_works():
    text = render_exports({"ONE": "a b", "TWO": AWKWARD}, Shell.POSIX)
    script = 'eval "$TEXT"; printf "%s|%s" "$ONE" "$TWO"'
    run = subprocess.run(["/bin/sh", "-c", script], env={"TEXT": text}, capture_output=True, text=True, check=True)
    assert run.stdout == f"a b|{AWKWARD}"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_gets_back_what_went_in():
    script = render_exports({"VALUE": AWKWARD}, Shell.FISH) + '\nprintf %s "$VALUE"'
    assert subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True).stdout == AWKWARD


def test_fish_and_powershell_are_quoted_by_their_rules():
    assert render_exports({"V": "it's \\ \u2018x"}, Shell.FISH) == "set -gx V 'it\\'s \\\\ \u2018x';"
    assert render_exports({"V": "it's \\ \u2018x"}, Shell.POWERSHELL) == "$env:V = 'it''s \\ \u2018\u2018x'"
