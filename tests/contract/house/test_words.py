"""One word for each thing, and the field's own: private words that once named parts of this project are gone.

NAMES must not be part of an identifier, PHRASES must not occur in a comment, a docstring, a message or a page.
EXCEPTIONS lists the places where one of these is the right word.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMES = {
    "begun": "pending, started",
    "birth": "creation",
    "carrying": "carry over",
    "cohort": "batch",
    "desk": "queue",
    "door": "entry point",
    "entrance": "admission",
    "fate": "outcome",
    "foreign": "custom, other",
    "gathered": "collected",
    "heart": "core",
    "hungry": "waiting",
    "intake": "preprocessing, queue",
    "lane": "queue, connection",
    "landed": "committed, written",
    "life": "generation",
    "lives": "generations",
    "outbox": "send queue",
    "pace": "rate",
    "plant": "insert",
    "quickest": "fastest",
    "starved": "waiting",
    "strain": "load",
    "ticking": "computing",
    "waiter": "request",
    "wish": "request",
}
"""Each with what to say instead."""
PHRASES = {
    r"cohorts?": "batch",
    r"\w+ is asked who": "authentication is disabled",
    r"(the|a) desk": "queue",
    r"fate of": "outcome of",
    r"the heart": "the core",
    r"hungry|starved": "waiting",
    r"lanes?": "queue, connection",
    r"(a|one|another|each|its|this|that|old|new|named) life(?! cycle)|lives of": "generation",
    r"sign of life": "use",
    r"(short|long) way": "path",
    r"outbox": "send queue",
    r"quickest": "fastest",
    r"stands? (at|there)|stood (at|there)": "is at, has",
    r"the wish": "the request",
    r"goes? behind|comes? behind": "follows",
    r"word that says": "value",
}
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("docs/adr/010-unread-refusals.md", "quickest"): "the name of a file at the time",
    ("docs/adr/011-short-way.md", "cohort"): "likewise",
    ("docs/adr/011-short-way.md", "cohorts"): "likewise",
    ("docs/adr/011-short-way.md", "short way"): "how it was called at the time",
}
"""By file and word: why it may stay. The list may only shrink."""

CODE = sorted(path for folder in ("client", "service") for path in (ROOT / folder).rglob("*.py"))
OTHER_CODE = sorted(
    path
    for folder in ("bench", "documentation", "examples", "testing", "tests", "verification")
    for path in (ROOT / folder).rglob("*.py")
)
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "proto").rglob("*.proto"),
        *(ROOT / "service").rglob("*.lua"),
    ]
)


def test_no_identifier_is_a_private_word() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}": NAMES[part]
        for path in (*CODE, *OTHER_CODE)
        for name in identifiers(path.read_text(encoding="utf-8"))
        for part in parts(name)
        if part in NAMES
    }
    assert found == {}


def test_no_file_is_named_by_one() -> None:
    assert [str(path) for path in (*CODE, *OTHER_CODE) if set(parts(path.stem)) & set(NAMES)] == []


def test_no_text_says_one() -> None:
    found, excused = [], set()
    for path in (*CODE, *PAGES):
        place = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for line, phrase, instead in phrases(text if path in PAGES else prose(text)):
            if (place, phrase.lower()) in EXCEPTIONS:
                excused.add((place, phrase.lower()))
            else:
                found.append(f"{place}:{line}: {phrase!r}; say: {instead}")
    assert not found, "\n".join(found)
    assert set(EXCEPTIONS) == excused, f"gone; take them off EXCEPTIONS: {set(EXCEPTIONS) - excused}"


def test_no_merge_has_left_its_marks() -> None:
    kinds = {".css", ".html", ".js", ".json", ".lua", ".md", ".proto", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
    folders = ("bench", "client", "deploy", "docs", "examples", "proto", "service", "testing", "tests", "verification")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    assert len(files) > 1000
    marks = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    assert [str(path) for path in (*ROOT.glob("*.md"), *files) if marks.search(path.read_bytes())] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("another\n    life of the session", ["another life"]),
        ("its life cycle", []),
        ("A record that stands\nat step 3", ["stands at"]),
        ("a lane for each, planets", ["lane"]),
        ("lanes of_lane", ["lanes"]),
    ],
)
def test_phrases_are_found(text: str, expected: list[str]) -> None:
    assert [phrase for _, phrase, _ in phrases(text)] == expected


def test_comments_docstrings_and_messages_are_prose_and_code_is_not() -> None:
    source = 'lane = 1  # a lane\ndef f(lane):\n    """The heart."""\n    return f"short way {y}"\n'
    assert [phrase for _, phrase, _ in phrases(prose(source))] == ["lane", "The heart", "short way"]


def test_identifiers_are_taken_apart() -> None:
    assert parts("_old_lifeOf") == ["old", "life", "of"]
    assert set(identifiers("class Intake:\n    my_desk = 'lane'\n")) >= {"Intake", "my_desk"}


def identifiers(source: str) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def parts(name: str) -> list[str]:
    """ "_old_lifeOf" -> ["old", "life", "of"]"""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]


def prose(source: str) -> str:
    """Returns a Python file's comments and strings, on their lines."""
    lines = [""] * (source.count("\n") + 2)
    # since Python 3.12 an f-string is several tokens, with its text in FSTRING_MIDDLE
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            text = token.string.lstrip("#") if token.type == tokenize.COMMENT else token.string
            for number, part in enumerate(text.split("\n")):
                lines[token.start[0] - 1 + number] += f" {part}"
    return "\n".join(lines)


def phrases(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields line, phrase and replacement of each match. A phrase may span lines."""
    for match in _PHRASE.finditer(text):
        instead = next(
            PHRASES[pattern] for pattern in PHRASES if re.fullmatch(_spaced(pattern), match[0], re.IGNORECASE)
        )
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead


def _spaced(pattern: str) -> str:
    return pattern.replace(" ", r"\s+")


_PHRASE = re.compile("|".join(rf"\b(?:{_spaced(pattern)})\b" for pattern in PHRASES), re.IGNORECASE)
