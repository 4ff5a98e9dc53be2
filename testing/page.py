"""The code blocks of a Markdown page, in order, and what the page says about running them.

```python and ```sh blocks are executed. A ```text block after one is its output (... stands for the rest of a line),
and title="FILE" saves a block instead of running it. `<!-- not run: REASON -->` before a block keeps tests from running
it, and `<!-- stops the server -->` marks where the reader stops the server that the page has started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r'^```(?P<language>[a-z]*)(?: title="(?P<title>[^"]+)")?$')
NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->$")
STOP = "<!-- stops the server -->"
EXECUTED = ("python", "sh")
PICTURES = ("mermaid",)


@dataclass(frozen=True)
class Block:
    """A fenced block, or the mark where a reader stops the server (language "stop").

    line: of the fence, counting from 1. title: the file that the block is saved as; empty: it is executed. not_run: why
    no test runs it; empty: it is run. output: what it prints, from the `text` block after it; None: not specified.
    """

    line: int
    language: str
    text: str
    title: str = ""
    not_run: str = ""
    output: str | None = None


def blocks(page: Path) -> list[Block]:
    """Returns the blocks. Raises ValueError, with the line, for one that is neither run nor marked as not run."""
    found: list[Block] = []
    for block in _fences(page):
        if block.language != "text" or block.not_run:
            if not (block.not_run or block.title or block.language in (*EXECUTED, *PICTURES, "stop")):
                place = f"{page.name}:{block.line}"
                raise ValueError(f"{place}: got a block of {block.language!r}, expected python, sh or text")
            found.append(block)
            continue
        last = found[-1] if found else None
        if last is None or last.not_run or last.title or last.language not in EXECUTED or last.output is not None:
            raise ValueError(f"{page.name}:{block.line}: an output, expected behind a block that is run")
        found[-1] = Block(last.line, last.language, last.text, output=block.text)
    return found


def python_blocks(page: Path) -> list[str]:
    """Returns all Python programs of a page."""
    return [block.text for block in _fences(page) if block.language == "python"]


def _fences(page: Path) -> Iterator[Block]:
    lines = page.read_text().splitlines()
    not_run, first, fence = "", 0, None
    for number, line in enumerate(lines, 1):
        if fence is not None:
            if line == "```":
                text = "\n".join(lines[first : number - 1]) + "\n"
                yield Block(first, fence["language"], text, fence["title"] or "", not_run)
                not_run, fence = "", None
        elif line.lstrip().startswith("```"):
            first, fence = number, FENCE.match(line)
            if fence is None:
                raise ValueError(f"{page.name}:{number}: got {line!r}, expected a fence such as ```python")
        elif line == STOP:
            yield Block(number, "stop", "")
        elif mark := NOT_RUN.match(line):
            not_run = mark["reason"]
    if fence is not None:
        raise ValueError(f"{page.name}:{first}: the block is not closed")
