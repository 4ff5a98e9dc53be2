"""python -m documentation: writes the pages of docs/reference that are made from the code."""

from __future__ import annotations

from .reference import FILES, FOLDER


def main() -> None:
    for name, made in FILES.items():
        (FOLDER / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
