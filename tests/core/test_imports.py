"""No circles: every module of the core can be understood from those that it imports."""

from __future__ import annotations

import grimp


def test_no_module_of_the_core_imports_itself_in_a_roundabout_way() -> None:
    graph = grimp.build_graph("cellkeeper_service", include_external_packages=False)
    modules = sorted(graph.find_descendants("cellkeeper_service.core"))
    assert len(modules) > 10
    circles = [
        one
        for one in modules
        for other in graph.find_modules_directly_imported_by(one)
        if other in modules and graph.chain_exists(other, one)
    ]
    assert not circles
