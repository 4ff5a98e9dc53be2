"""Settings are grouped in --help as in the code, and workers get what their parent has."""

from __future__ import annotations

import re

import pytest
from cellkeeper_service.server.config import Settings, flag_of, serve_parser, setting_fields
from cellkeeper_service.server.setting import Group, setting_of


def test_help_lists_every_setting_under_its_group() -> None:
    headings = [group.value for group in Group]
    text = serve_parser().format_help()
    found = [line[:-1] for line in text.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert [heading for heading in found if heading in headings] == headings
    for group in Group:
        section = text.split(f"\n{group.value}:\n")[1].split("\n\n")[0]
        flags = re.findall(r"^  (--[a-z-]+)", section, re.MULTILINE)
        assert flags == [flag_of(item) for item in setting_fields() if setting_of(item).group is group]


def test_the_code_lists_settings_group_by_group() -> None:
    groups = [setting_of(item).group for item in setting_fields()]
    assert list(dict.fromkeys(groups)) == list(Group)
    assert groups == sorted(groups, key=list(Group).index)


@pytest.mark.parametrize("given", [[], ["--device="], ["--listen=", "--metrics-listen="], ["--http-listen="]])
def test_a_worker_takes_and_refuses_what_one_server_would(given: list[str]) -> None:
    """Most of what is empty is refused by the code that uses it, and not a default."""
    settings = Settings.read([*given, "--workers=2", "--", "m"], {})
    assert Settings.read(settings.words(), {}) == settings
