"""Copies of the kernels with a fault."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cellkeeper_service.engine.cuda as package


def mutated_cells(folder: Path, file: str, old: str, new: str) -> ModuleType:
    """Returns the module `cells` of a copy of engine/cuda in `folder`, with `old` replaced by `new` in `file`.

    Raises ValueError if `file` has no `old`: the kernels have changed, so the mutation has to change, too.
    """
    name = f"mutated_{folder.name}"
    for source in sorted(Path(package.__path__[0]).rglob("*.py")):
        target = folder / name / source.relative_to(package.__path__[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    changed = folder / name / file
    text = changed.read_text()
    if old not in text:
        raise ValueError(f"{file}: nothing reads {old!r}")
    changed.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location(
        name, folder / name / "__init__.py", submodule_search_locations=[str(folder / name)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(name)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return importlib.import_module(f"{name}.cells")
