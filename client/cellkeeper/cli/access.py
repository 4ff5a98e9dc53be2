"""The flags and variables for TLS and tokens. A token is never a flag, which every user of the machine could read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .._transport.credentials import Tls

TOKEN_VARIABLE = "CELLKEEPER_TOKEN"


def add(shared: argparse.ArgumentParser) -> None:
    group = shared.add_argument_group("access", f"A token comes from --token-file, or from ${TOKEN_VARIABLE}.")

    def file(name: str, text: str) -> None:
        variable = "CELLKEEPER_" + name.upper().replace("-", "_")
        text = f"{text} (default: ${variable})"
        default = os.environ.get(variable) or None
        group.add_argument(f"--{name}", metavar="FILE", type=_given, default=default, help=text)

    group.add_argument("--tls", action="store_true", help="use TLS with gRPC's default certificate authorities")
    file("ca-file", "use TLS, and check the server's certificate with these authorities")
    file("cert-file", "the client's own certificate, for mutual TLS")
    file("key-file", "the key of that certificate")
    group.add_argument(
        "--server-name",
        type=_given,
        metavar="NAME",
        help="a name in the server's certificate, if it differs from the host of --endpoint",
    )
    file("token-file", "a file that holds a token; it is read again for every call")
    group.add_argument("--token", action=_Refused, help=argparse.SUPPRESS)  # otherwise it would abbreviate --token-file


class _Refused(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        parser.error(
            "a token cannot be given as a flag, which other users could read; use --token-file FILE or "
            f"${TOKEN_VARIABLE}"
        )


def _given(word: str) -> str:
    """Refuses an empty word, as an unset variable of a script leaves it: it would mean no TLS, or no token."""
    if not word:
        raise argparse.ArgumentTypeError("got nothing, expected a value")
    return word


def client_access(parsed: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments `tls` and `token` of a client."""
    tls: Tls | bool = False
    if parsed.tls or parsed.ca_file or parsed.cert_file or parsed.key_file or parsed.server_name:
        given = parsed.ca_file, parsed.cert_file, parsed.key_file, parsed.server_name
        tls = Tls(*[word or "" for word in given])
    token = Path(parsed.token_file) if parsed.token_file else os.environ.get(TOKEN_VARIABLE) or None
    return {"tls": tls, "token": token}
