"""`cellkeeper-server token new`: makes a token, which is shown once and stored nowhere."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from hashlib import sha256

from cellkeeper_service.command_line import Parser, print_out
from cellkeeper_service.errors import StartError

from .token_table import PREFIX, BadTokens, check_tenant, read_rights, read_time

TOKEN_BYTES = 32


def new_token() -> str:
    """Returns a token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def token_line(token: str, tenant: str, rights: str, expires: str = "") -> str:
    """Returns the token's line for the token file. Raises BadTokens."""
    check_tenant(tenant)
    read_rights(rights)
    read_time(expires)
    line = f"token tenant={tenant} rights={rights} sha256={sha256(token.encode()).hexdigest()}"
    return f"{line} expires={expires}" if expires else line


def token_parser() -> argparse.ArgumentParser:
    """Returns the command-line parser of `cellkeeper-server token`."""
    parser = Parser(prog="cellkeeper-server token", description="Tokens for --tokens FILE.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    new = commands.add_parser(
        "new",
        help="make a token",
        description="Prints a new token on stderr, once, and its line for the file, with its hash, on stdout.",
    )
    new.add_argument(
        "--tenant",
        required=True,
        help="whose sessions the token is for; '' for those created without tokens",
    )
    new.add_argument("--rights", required=True, help="some of step,read,admin")
    new.add_argument("--expires", default="", help="for example 2027-01-31T00:00:00Z; default: never")
    return parser


def run_token(words: Sequence[str]) -> None:
    """Prints the line for the token file on stdout, so that it can be appended to the file, and the token on stderr.

    Raises StartError; exits on --help and usage errors.
    """
    parsed = token_parser().parse_args(words)
    token = new_token()
    try:
        line = token_line(token, parsed.tenant, parsed.rights, parsed.expires)
    except BadTokens as error:
        raise StartError(str(error)) from error
    print_out(f"{line}\n")
    print(token, file=sys.stderr, flush=True)
