"""`make check-dist`: installs the built wheel for every available Python, as a user does, and serves from it.

For each Python from 3.10 to 3.14, checks first that pip finds what the tests need in the public index, whatever else
this machine is configured to use, and that the client alone installs nothing large. Then the server serves the demo's
bundle, is killed and restarted while a client steps, and must predict bit for bit what an offline run does: with the
pins of constraints.txt, and with the oldest and the newest release of grpcio, whose core it uses.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.contract.release.continued import predictions
from tests.contract.release.environment import Environment

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.contract.release", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--pythons", default=",".join(VERSIONS), help="versions, with commas between; default: %(default)s"
    )
    parser.add_argument(
        "--grpcio",
        default="1.71.0,newest",
        help="releases to serve with beside the pinned one, with commas between; default: %(default)s",
    )
    parser.add_argument("--extras", default="", help="what the tests need: pip must find it in the public index")
    options = parser.parse_args()
    releases = [release for release in options.grpcio.split(",") if release]
    failed, missing = [], []
    for version in options.pythons.split(","):
        python = interpreter(version)
        if python is None:
            missing.append(version)
            continue
        print(f"== Python {version}", flush=True)
        try:
            check(options.wheel.resolve(), python, releases, options.extras)
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            failed.append(version)
            print(f"   failed: {error}", flush=True)
    for version in missing:
        print(f"== Python {version}: not at hand, NOT CHECKED", flush=True)
    if failed or len(missing) == len(options.pythons.split(",")):
        sys.exit(f"check-dist: failed with {', '.join(failed) or 'no Python at hand'}")


def interpreter(version: str) -> Path | None:
    """Returns a working Python of this version, from the PATH or from pyenv; None if there is none."""
    found = shutil.which(f"python{version}")
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (*pyenv, *([Path(found)] if found else [])):
        ran = subprocess.run(
            [candidate, "-c", "import sys, venv; print(sys.version)"], capture_output=True, text=True, check=False
        )
        if ran.returncode == 0 and ran.stdout.startswith(f"{version}."):
            return candidate
    return None


def check(wheel: Path, python: Path, releases: Sequence[str], extras: str) -> None:
    """Checks an installed wheel. releases: of grpcio, to serve with beside the pinned one. extras: what the tests need.

    Raises ValueError if a check fails, and whatever running its programs raises.
    """
    with tempfile.TemporaryDirectory(prefix="cellkeeper-dist-") as name:
        folder = Path(name)
        environment = Environment(folder / "venv", python)
        if extras:
            environment.check_public(extras)
            print("   the tests: pip finds what they need in the public index", flush=True)
        environment.install(wheel)
        client = environment.client()
        if client.installed or client.imported:
            raise ValueError(f"the client alone: got {client.installed + client.imported} beside it, expected nothing")
        print("   the client alone: nothing large is installed", flush=True)
        environment.install(wheel, "server")
        check_served(environment, folder / "pinned")
        for release in releases:
            if not environment.has_grpcio(release):
                print(f"   grpcio {release}: has no wheel for this Python, NOT CHECKED", flush=True)
                continue
            print(f"   grpcio {environment.change_grpcio(wheel, release)}", flush=True)
            check_served(environment, folder / release)


def check_served(environment: Environment, folder: Path) -> None:
    """Checks that the server serves. folder: for its store; created. Raises as `check` does."""
    folder.mkdir()
    served, offline = predictions(environment, folder)
    if served != offline:
        raise ValueError(f"the server's predictions differ from those offline: got {served}, expected {offline}")
    print(f"   the server: {len(served)} steps, killed on the way, the same bits as offline", flush=True)


if __name__ == "__main__":
    main()
