"""No module or package imports, directly or not, one that imports it.

Imports for type checkers only count too: a reader of one file has to read the other. KNOWN lists the existing circles.
It may only shrink: a new circle fails, and so does a listed one that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import grimp
import pytest

PACKAGES = ("cellkeeper_service", "cellkeeper", "cellkeeper_proto")
KNOWN: dict[str, set[str]] = {}
"""By package: its circles, each as the sorted names of its members, separated by spaces."""

Imports = Mapping[str, set[str]]  # by name: the names that it imports


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_no_circle_but_those_that_are_known(graph: grimp.ImportGraph) -> None:
    found = {package: circles(imports_within(graph, package)) for package in packages(graph)}
    new = {name: found[name] - KNOWN.get(name, set()) for name in found}
    assert not any(new.values()), f"import circles that were not there: { {n: c for n, c in new.items() if c} }"
    gone = {name: listed - found.get(name, set()) for name, listed in KNOWN.items()}
    assert not any(gone.values()), f"gone; take them off KNOWN: { {n: c for n, c in gone.items() if c} }"


def test_every_module_is_looked_at(graph: grimp.ImportGraph) -> None:
    looked_at = set(packages(graph))
    assert {"cellkeeper_service", "cellkeeper_service.core", "cellkeeper"} <= looked_at
    for module in graph.modules:
        assert module in looked_at or module.rpartition(".")[0] in looked_at, module


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}) == set()
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}) == {
        "a b c",
        "e f",
    }
    assert circles({"a": {"b", "c"}, "b": {"a"}, "c": {"a"}}) == {"a b c"}  # two circles that share a module are one


def test_a_circle_of_packages_is_one_even_where_no_module_is_in_one() -> None:
    graph = grimp.ImportGraph()
    for module in ("p", "p.one", "p.one.a", "p.one.b", "p.two", "p.two.a"):
        graph.add_module(module)
    graph.add_import(importer="p.one.a", imported="p.two.a")
    graph.add_import(importer="p.two.a", imported="p.one.b")
    assert circles(imports_within(graph, "p")) == {"one two"}
    assert circles(imports_within(graph, "p.one")) == set()


def packages(graph: grimp.ImportGraph) -> list[str]:
    return sorted(module for module in graph.modules if graph.find_children(module))


def imports_within(graph: grimp.ImportGraph, package: str) -> Imports:
    """Returns which children of the package import which, descendants included. "" is the package's own __init__."""
    names = ["", *(child.rpartition(".")[2] for child in graph.find_children(package))]
    found: dict[str, set[str]] = {name: set() for name in names}
    for module in (package, *graph.find_descendants(package)):
        child = child_of(package, module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported == package or imported.startswith(f"{package}."):
                found[child].add(child_of(package, imported))
    return found


def child_of(package: str, module: str) -> str:
    return module[len(package) + 1 :].partition(".")[0]


def circles(imports: Imports) -> set[str]:
    """Returns the largest groups whose members all reach each other."""
    reached = {name: reachable(imports, name) for name in imports}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other]) | {name}
        for name in imports
        if name in reached[name]
    }
    return {" ".join(sorted(group)) for group in groups if len(group) > 1}


def reachable(imports: Imports, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in imports[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found
