"""``muster ca``: CAs of one's own, from the root to the certificates of a fleet. Works without a server.

A table of the sub-commands; each is in a module of its own.
"""

import typer

from muster.cli.ca_authority import init, intermediate
from muster.cli.ca_export import export
from muster.cli.ca_issue import issue, sign_csr
from muster.cli.ca_list import list_certificates, profiles, show
from muster.cli.ca_revocation import crl, revoke, unhold
from muster.cli.ca_verify import verify

app = typer.Typer(
    add_completion=False,
    help="Run CAs of your own: issue, verify and revoke certificates.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(init)
app.command()(intermediate)
app.command()(issue)
app.command("sign-csr")(sign_csr)
app.command()(export)
app.command()(verify)
app.command()(revoke)
app.command()(unhold)
app.command()(crl)
app.command("list")(list_certificates)
app.command()(show)
app.command()(profiles)
