"""`make licences`: writes docs/licences.md, the licences of the wheel's dependencies, as the packages state them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.release.environment import ROOT

PAGE = ROOT / "docs" / "licences.md"
NOT_LISTED = frozenset({"bench", "demo", "dev", "docs", "release", "onnx-cuda"})
"""Extras for work on Cellkeeper itself, and the one that HEAD mentions."""
OF_CUDA = ("nvidia-", "cuda-", "triton")  # prefixes of packages that only a CUDA build of torch requires
HEAD = """\
# Licences of dependencies

What the wheel brings, by the extra that needs it, with the licence that each package's own metadata names. Cellkeeper
itself is Apache-2.0 ([LICENSE](../LICENSE), [NOTICE](../NOTICE)). A CUDA build of torch, and the extra `onnx-cuda`,
bring NVIDIA's libraries too, under licences of NVIDIA's own. Python 3.10 gets older releases, of which some need a few
more packages. `make licences` writes this page, a test compares it with what is installed, and `make sbom` makes a bill
of materials with versions.

| package | needed by | licence |
|---|---|---|
"""


def rows() -> list[str]:
    """Returns the rows of the table for the packages of this environment."""
    needed: dict[str, list[str]] = {}
    extras = set(metadata("cellkeeper").get_all("Provides-Extra", [])) - NOT_LISTED
    for extra in ("", *sorted(extras)):
        for name in _needed(extra):
            needed.setdefault(name, []).append(extra or "client")
    return [
        f"| {name} | {'every part' if by[0] == 'client' else ', '.join(by)} | {licence(distribution(name))} |"
        for name, by in sorted(needed.items())
    ]


def licence(package: Distribution) -> str:
    """Returns the package's licence: its SPDX expression, or else its older licence text or classifiers."""
    fields = package.metadata
    kinds = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if text.startswith("License ::")]
    (text,) = fields.get_all("License", [""])
    (expression,) = fields.get_all("License-Expression", [""])
    return expression or " or ".join(kinds) or text.partition("\n")[0] or "not named"


def _needed(extra: str) -> Iterator[str]:
    """Yields the packages that an installation with this extra has besides Cellkeeper."""
    waiting, seen = [("cellkeeper", frozenset([extra]))], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError as error:
            raise SystemExit(f"licences: {name} is not installed here; run: make venv") from error
        for requirement in map(Requirement, requires):
            marker = requirement.marker
            wanted = marker is None or any(marker.evaluate({"extra": one}) for one in extras or [""])
            if wanted and not requirement.name.startswith(OF_CUDA):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return (name for name in sorted({name for name, _ in seen}) if name != "cellkeeper")


def main() -> None:
    PAGE.write_text(HEAD + "\n".join(rows()) + "\n")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
