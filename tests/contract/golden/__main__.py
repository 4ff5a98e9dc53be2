"""Rewrites the golden files: `python -m tests.contract.golden`. `git diff` shows what changed, which needs a reason."""

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
        for name in texts.keys() & recorded.keys():
            if texts[name] != recorded[name]:
                sys.exit(f"{name}: on {store} the replies differ from those on {STORES[0]}; nothing was written")
        texts |= recorded
    for name, text in texts.items():
        (FOLDER / name).write_text(text)
        print(f"{FOLDER / name}: {text.count('## ')} entries")


if __name__ == "__main__":
    main()
