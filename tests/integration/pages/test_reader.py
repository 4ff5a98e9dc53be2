"""The reader of pages notices what is wrong with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.page import blocks

from .reader import Reader

NO_SERVER, NO_REDIS = "localhost:1", 1


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```python\nprint(1)\nprint(2)\n```\n```text\n1...\n```\n",
        "```sh\necho 1\n```\n```text\n2\n```\n",
        "```sh\nfalse\n```\n",
    ],
    ids=["another line", "a line more", "another line of a shell", "an exit status"],
)
def test_what_a_page_says_is_compared(tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        Reader(page(tmp_path, text), NO_SERVER, NO_REDIS).read()


def test_blocks_share_what_they_define_and_save(tmp_path: Path) -> None:
    text = '```python\nx = 7\n```\n```python title="a.py"\nprint(8)\n```\n```python\nprint(x)\n```\n```text\n7\n```\n'
    text += (
        "```sh\npython a.py\n```\n```text\n8\n```\n```python\nimport asyncio\nprint(await asyncio.sleep(0, 9))\n```\n"
    )
    text += "```text\n9\n```\n<!-- not run: nowhere -->\n```sh\nfalse\n```\n"
    read = page(tmp_path, text)
    Reader(read, NO_SERVER, NO_REDIS).read()
    assert [block.not_run for block in blocks(read)] == ["", "", "", "", "", "nowhere"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```go\nx\n```\n", "got a block of 'go'"),
        ("```python\nx\n", "not closed"),
        ("``` python\nx\n```\n", "expected a fence"),
        ("- x\n  ```python\n  x\n  ```\n", "expected a fence"),
        ("```text\nx\n```\n", "expected behind a block that is run"),
        ("<!-- not run: x -->\n```sh\nx\n```\n```text\nx\n```\n", "expected behind a block that is run"),
    ],
)
def test_a_block_that_no_test_could_run_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        blocks(page(tmp_path, text))
