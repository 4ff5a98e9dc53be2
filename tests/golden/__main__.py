"""Writes the golden files anew: `python -m tests.golden`. What changed is for `git diff` to say, and for a reason."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .recording import FOLDER, STORES, Texts, record


def main() -> None:
    texts: Texts = {}
    for store in STORES:
        with tempfile.TemporaryDirectory(prefix="cellkeeper-golden-") as folder:
            recorded = record(store, Path(folder))
        if texts and texts["wire.txt"] != recorded["wire.txt"]:
            sys.exit(f"wire.txt: on {store} the replies differ from those on {STORES[0]}; nothing was written")
        texts |= recorded
    for name, text in texts.items():
        (FOLDER / name).write_text(text)
        print(f"{FOLDER / name}: {text.count('## ')} entries")


if __name__ == "__main__":
    main()
