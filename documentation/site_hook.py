"""What MkDocs is told beside mkdocs.yml.

- `extra.outside_pages` names pages outside docs/, as globs in the repository; the site has them at the same paths.
- Links between pages work on a code host and in the site. What they lead to outside the site is named by its path.
- An entry of the navigation with `*` stands for the pages that it matches and that no other entry names.
- A built page loads nothing from another host.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_RELATIONS_THAT_LOAD = {"stylesheet", "icon", "preload", "preconnect", "modulepreload", "dns-prefetch", "prefetch"}


def on_config(config: MkDocsConfig) -> None:
    """Replaces the patterns of the navigation by the pages that they match."""
    if config.nav is not None:
        docs = Path(config.docs_dir)
        pages = [path.relative_to(docs).as_posix() for path in docs.rglob("*.md")]
        config.nav = expanded(config.nav, sorted([*pages, *_outside(config)]))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages outside docs/, and the pictures that they show."""
    root = _repository(config)
    for path in _outside(config):
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
        for link in _LINK.finditer((root / path).read_text(encoding="utf-8")):
            picture = posixpath.normpath(posixpath.join(posixpath.dirname(path), link["target"]))
            inside = picture.startswith("docs/")
            if link["image"] and not inside and (root / picture).is_file() and picture not in files.src_uris:
                files.append(File.generated(config, picture, abs_src_path=str(root / picture)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites the page's links."""
    path = page.file.src_uri
    where = path if path in _outside(config) else f"docs/{path}"
    return relinked(markdown, where, set(files.src_uris), _repository(config))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Raises PluginError where the page loads something from another host."""
    loaded = [url for url in loaded_urls(output) if re.match(r"(https?:)?//", url)]
    if re.search(r'class="[^"]*\bmermaid\b', output):
        loaded.append("a drawing program for mermaid")  # the theme's script does
    if loaded:
        raise PluginError(f"{page.file.src_uri}: loads {loaded[0]}; put the file into docs/ instead")


def expanded(nav: list[Any], pages: list[str]) -> list[Any]:
    """The navigation with patterns replaced by those of `pages` that no entry without `*` names, in their order."""
    left = set(pages) - set(_named(nav))

    def of(entry: Any) -> list[Any]:
        if isinstance(entry, dict):
            return [
                {title: [page for item in inner for page in of(item)] if isinstance(inner, list) else inner}
                for title, inner in entry.items()
            ]
        if "*" not in entry:
            return [entry]
        pattern = re.compile(re.escape(entry).replace(r"\*", "[^/]*"))
        found = sorted(page for page in left if pattern.fullmatch(page))
        left.difference_update(found)
        return found

    return [item for entry in nav for item in of(entry)]


def relinked(markdown: str, path: str, pages: set[str], repository: Path) -> str:
    """The text of the page at `path` of the repository, with links as the site needs them.

    pages: the site's files, by their path in it. A link to a file of the repository that is not among them becomes
    its text and the file's path; one that leads nowhere stays, for MkDocs to report.
    """

    def replaced(link: re.Match[str]) -> str:
        target = link["target"]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if found.removeprefix("docs/") in pages:
            target = posixpath.relpath(
                found.removeprefix("docs/"), posixpath.dirname(path.removeprefix("docs/")) or "."
            )
            return f"{link['image']}[{link['text']}]({target}{link['anchor'] or ''})"
        place = repository / found
        if not place.exists() or (found.startswith("docs/") and place.is_file()):
            return link[0]
        return link["text"] if link["text"].strip("`") == found else f"{link['text']} (`{found}`)"

    return _LINK.sub(replaced, markdown)


def loaded_urls(html: str) -> list[str]:
    """What a browser fetches to show the page."""
    found: list[str] = []

    class Loading(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            relations = set((values.get("rel") or "").split())
            if tag in _LOADING and (tag != "link" or relations & _RELATIONS_THAT_LOAD):
                found.append(values.get(_LOADING[tag]) or "")

    Loading().feed(html)
    return found


def _named(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, dict):
            for inner in entry.values():
                yield from _named(inner if isinstance(inner, list) else [inner])
        elif "*" not in entry:
            yield entry


def _repository(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _outside(config: MkDocsConfig) -> list[str]:
    root = _repository(config)
    found = (path for pattern in config.extra.get("outside_pages", ()) for path in root.glob(pattern))
    return sorted(path.relative_to(root).as_posix() for path in found)
