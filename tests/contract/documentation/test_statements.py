"""What pages say about options, defaults, arguments, metrics, tests and files is so."""

from __future__ import annotations

import inspect
import re
from ast import literal_eval
from functools import cache
from pathlib import Path

import pytest
from cellkeeper import AsyncClient, Client
from cellkeeper_service.server.config import flag_of, setting_fields

from documentation.metrics_page import families
from documentation.reference import FILES

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
OLD = {DOCS / "adr", DOCS / "rules.md"}  # decisions have the names of their time; the rules are made from the code
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if not OLD & {page, *page.parents} and page.name not in FILES),
]
OTHER_PROGRAMS = {"--appendonly", "--preload", "--shape"}
"""Options of Redis, gunicorn and perf_analyzer."""
OTHER_OPTIONS = {"performance.md", "reliability.md", "reliability-runs.md"}
"""Pages with options of the bench and of the verification programs."""


def spans(page: Path) -> list[str]:
    """Returns the inline code of a page, each on one line."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


@cache
def options() -> frozenset[str]:
    """Returns every option of both programs, from the reference, which is made from the parsers."""
    reference = "".join((DOCS / "reference" / name).read_text() for name in ("settings.md", "commands.md"))
    return frozenset(re.findall(r"^\| `(--[a-z-]+)", reference, re.MULTILINE)) | {"--help", "--version"}


@cache
def sources() -> str:
    """Returns the text of all tests."""
    return "".join(path.read_text() for folder in ("tests", "verification") for path in (ROOT / folder).rglob("*.py"))


def test_pages_are_found() -> None:
    assert len(PAGES) > 60
    assert len(options()) > 80
    assert "--max-batch" in options()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OTHER_OPTIONS], ids=lambda page: page.stem)
def test_every_option_exists(page: Path) -> None:
    named = {span.split()[0] for span in spans(page) if re.match(r"--[a-z]", span)}
    assert {option for option in named if not option.startswith("--no-")} - options() - OTHER_PROGRAMS == set()


def test_every_default_in_brackets_is_the_settings() -> None:
    defaults = {flag_of(item): item.default for item in setting_fields()}
    checked = 0
    for page in PAGES:
        for flag, number in re.findall(r"`(--[a-z-]+)`\s\(([\d,]+)\)", page.read_text()):
            if flag in defaults:
                assert int(number.replace(",", "")) == defaults[flag], f"{page.name}: {flag}"
                checked += 1
    assert checked > 3


def test_every_limit_that_security_lists_is_the_settings() -> None:
    defaults = {flag_of(item): item.default for item in setting_fields()}
    units = {"": 1, " MiB": 1 << 20, " s": 1000}
    rows = re.findall(r"\| ([\d, MiBs]+) \| ((?:`--[a-z-]+`(?:, )?)+) \| ", (DOCS / "security.md").read_text())
    checked = 0
    for limits, flags in rows:
        for limit, flag in zip(limits.split(", "), flags.split(", "), strict=True):
            number, unit = re.fullmatch(r"(\d+)(| MiB| s)", limit).groups()  # type: ignore[union-attr]
            assert int(number) * units[unit] == defaults[flag.strip("`")], flag
            checked += 1
    assert checked > 6


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_argument_of_a_client_has_its_row_with_its_default(kind: type) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \| ", (DOCS / "client.md").read_text(), re.MULTILINE))
    arguments = list(inspect.signature(kind).parameters.values())
    assert {one.name: literal_eval(rows[one.name]) for one in arguments} == {one.name: one.default for one in arguments}


def test_every_metric_exists() -> None:
    known = {sample.name for family in families() for sample in family.samples} | {one.name for one in families()}
    for page in PAGES:
        named = {name for span in spans(page) for name in re.findall(r"\bcellkeeper_[a-z_]+", span)}
        metrics = {name for name in named if not name.startswith(("cellkeeper_service", "cellkeeper_proto"))}
        assert metrics - known == set(), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_and_file_exists(page: Path) -> None:
    missing = []
    for span in spans(page):
        if re.fullmatch(r"test_\w+", span) and f"def {span}(" not in sources():
            missing.append(span)
        if re.fullmatch(r"(tests|verification|deploy|docs|examples|bench)/[\w/.-]+", span):
            missing += [span] if not (ROOT / span).exists() else []
    assert missing == []


def test_the_path_of_a_step_names_files_and_functions_that_exist() -> None:
    _, table = (DOCS / "architecture.md").read_text().split("| where | what happens there |\n|---|---|\n")
    rows = table.split("\n\n")[0].splitlines()
    assert len(rows) > 15
    for row in rows:
        where = row.split("|")[1]
        folder = ROOT / ("client/cellkeeper" if where.startswith(" client ") else "service/cellkeeper_service")
        names = re.findall(r"`([\w/.]+)`", where)
        files = [name for name in names if "/" in name or name.endswith((".py", ".lua"))]
        texts = "".join(next(folder.rglob(file)).read_text() for file in files)
        functions = [part for name in names if name not in files for part in name.split(".")]
        assert [name for name in functions if not re.search(rf"\b(def|class) {name}\b", texts)] == [], row
