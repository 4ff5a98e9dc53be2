"""Settings are grouped in --help as in the code."""

from __future__ import annotations

import re

from cellkeeper_service.server.config import flag_of, serve_parser, setting_fields
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
