"""The site's hook: its navigation, its links, and that pages load nothing from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from documentation.docstrings import marked
from documentation.site_hook import expanded, loaded_urls, on_config, relinked

REPOSITORY = Path(__file__).parents[3]
HOOK = REPOSITORY / "documentation" / "site_hook.py"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one page in docs/ and one outside, with the real hook and strictness."""
    real = yaml.load((REPOSITORY / "mkdocs.yml").read_text(), _Loader)
    config = {
        "site_name": "s",
        "strict": real["strict"],
        "validation": real["validation"],
        "hooks": [str(HOOK)],
        "extra": {"outside_pages": ["*/README.md"]},
        "theme": {"name": None, "custom_dir": "theme"},
        "plugins": [],
        "use_directory_urls": False,
        "site_dir": "out",
    }
    for name, text in {
        "mkdocs.yml": yaml.safe_dump(config),
        "theme/main.html": "{{ page.content }}",
        "docs/page.md": "# Page",
        "bench/README.md": "# Bench\n\n[home](../docs/page.md) ![picture](p.png)",
        "bench/p.png": "",
        "proto/a.proto": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def built(repository: Path, text: str) -> str:
    """Returns the HTML of docs/page.md with this text. Raises Abort on warnings and errors."""
    (repository / "docs" / "page.md").write_text(text)
    build(load_config(str(repository / "mkdocs.yml")))
    return (repository / "out" / "page.html").read_text()


def test_links_into_and_out_of_docs_lead_to_pages_of_the_site(repository: Path) -> None:
    assert 'href="bench/index.html"' in built(repository, "[the bench](../bench/README.md)")
    outside = (repository / "out" / "bench" / "index.html").read_text()
    assert 'href="../page.html"' in outside
    assert 'src="p.png"' in outside
    assert (repository / "out" / "bench" / "p.png").exists()


def test_what_is_not_in_the_site_is_named_by_its_path(repository: Path) -> None:
    assert "The contract (<code>proto/a.proto</code>) says" in built(
        repository, "[The contract](../proto/a.proto) says"
    )


@pytest.mark.parametrize("link", ["nowhere.md", "../nowhere.md", "../bench/README.md#nowhere", "#nowhere", "/page.md"])
def test_a_broken_link_or_anchor_fails(repository: Path, link: str) -> None:
    with pytest.raises(Abort):
        built(repository, f"[there]({link})")


@pytest.mark.parametrize(
    ("html", "told"),
    [
        ('<script src="https://elsewhere/x.js"></script>', "https://elsewhere/x.js"),
        ('<pre class="mermaid">graph</pre>', "mermaid"),
    ],
)
def test_a_page_that_loads_from_another_host_fails(
    repository: Path, caplog: pytest.LogCaptureFixture, html: str, told: str
) -> None:
    with pytest.raises(Abort):
        built(repository, html)
    assert f"page.md: loads {told}" in caplog.text.replace("a drawing program for ", "")


def test_what_a_browser_loads() -> None:
    html = '<link rel="stylesheet" href="//a/b.css"><img src="c.png"><a href="https://d"></a><link rel="next" href="e">'
    assert loaded_urls(html) == ["//a/b.css", "c.png"]


def test_a_pattern_stands_for_what_no_other_entry_names() -> None:
    nav: list[Any] = [{"A": ["one.md", "*.md"]}, {"B": ["folder/*.md", {"C": "two.md"}]}, "*.md"]
    pages = ["folder/x.md", "folder/deep/y.md", "four.md", "one.md", "three.md", "two.md"]
    assert expanded(nav, pages) == [{"A": ["one.md", "four.md", "three.md"]}, {"B": ["folder/x.md", {"C": "two.md"}]}]


@pytest.mark.parametrize(
    ("path", "link", "becomes"),
    [
        ("README.md", "![x](docs/img/x.svg)", "![x](img/x.svg)"),
        ("README.md", "[m](docs/models.md#a)", "[m](models.md#a)"),
        ("README.md", "[u](https://host/docs/models.md)", "[u](https://host/docs/models.md)"),
        ("examples/co2/README.md", "[m](../../docs/models.md)", "[m](../../models.md)"),
        ("examples/co2/README.md", "[r](../../README.md)", "[r](../../README.md)"),
        ("docs/adr/1.md", "[r](../../README.md#a)", "[r](../README.md#a)"),
        ("docs/adr/1.md", "[n](nowhere.md)", "[n](nowhere.md)"),
    ],
)
def test_links_are_rewritten(path: str, link: str, becomes: str) -> None:
    pages = {"README.md", "models.md", "img/x.svg", "examples/co2/README.md"}
    assert relinked(link, path, pages, REPOSITORY) == becomes


def test_the_navigation_has_every_page_once() -> None:
    config = load_config(str(REPOSITORY / "mkdocs.yml"))
    on_config(config)
    named = sorted(_leaves(config.nav or []))
    assert len(named) == len(set(named))
    written = {path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")}
    assert written <= set(named)
    for page in named:
        assert (REPOSITORY / "docs" / page).is_file() or (REPOSITORY / page).is_file(), page
    assert "README.md" in named


def test_an_argument_is_bold_where_it_is_explained() -> None:
    text = "Waits.\n\nx: [T, F]. a, b: the\nsame. Raises: other. When x is there: as above."
    assert marked(text, {"x", "a", "b"}) == text.replace("x: [", "**x**: [").replace("a, b:", "**a, b**:")


class _Loader(yaml.SafeLoader):
    """Ignores the tags of mkdocs.yml."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for entry in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(entry)]
