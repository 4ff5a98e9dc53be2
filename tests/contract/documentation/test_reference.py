"""docs/reference is generated from the code, up to date and complete."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import cellkeeper
import pytest
from cellkeeper.__main__ import client_parser
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.errors import Reason
from cellkeeper_service.server.config import setting_fields, variable_of
from google.protobuf.descriptor import FileDescriptor

from documentation import reasons_page
from documentation.commands_page import leaves
from documentation.contract_page import CONTRACT, KSERVE, described
from documentation.markdown import table
from documentation.metrics_page import families
from documentation.reference import COMMAND, FILES, FOLDER


@pytest.mark.parametrize("name", FILES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == FILES[name](), f"{name} is stale; make it again: {COMMAND}"


def test_nothing_else_claims_to_be_made_from_the_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, "client.md"}


def test_every_public_name_of_the_client_has_its_section() -> None:
    sections = re.findall(r"^::: cellkeeper\.(\w+)$", (FOLDER / "client.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(cellkeeper.__all__)


def test_every_setting_has_its_row() -> None:
    page = (FOLDER / "settings.md").read_text()
    assert [item.name for item in setting_fields() if f"| `{variable_of(item)}` |" not in page] == []
    assert "| `--kserve` | `CELLKEEPER_KSERVE` | `off` | `on`, `off` |" in page
    assert "| `--wait-replicas` | `CELLKEEPER_WAIT_REPLICAS` | `0` | 0 to 2147483647 |" in page


@pytest.mark.parametrize(
    ("page_name", "file"), [("contract.md", pb.DESCRIPTOR), ("kserve.md", inference_pb2.DESCRIPTOR)]
)
def test_every_rpc_and_message_has_its_section(page_name: str, file: FileDescriptor) -> None:
    page = (FOLDER / page_name).read_text()
    (service,) = file.services_by_name.values()
    assert [name for name in service.methods_by_name if f"| `{name}` |" not in page] == []
    names = [*file.message_types_by_name, *file.enum_types_by_name]
    assert [name for name in names if f"\n## {name}\n" not in page] == []
    fields = {field for message in file.message_types_by_name.values() for field in message.fields_by_name}
    assert [field for field in fields if f"| `{field}` |" not in page] == []


@pytest.mark.parametrize("path", [CONTRACT, KSERVE])
def test_every_rpc_says_what_it_does(path: str) -> None:
    file = described(path)
    told = {tuple(item.path) for item in file.source_code_info.location if item.leading_comments}
    methods = file.service[0].method
    assert [method.name for number, method in enumerate(methods) if (6, 0, 2, number) not in told] == []


def test_a_reason_without_a_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(reasons_page.CAUSES, Reason.STEP_GAP)
    with pytest.raises(RuntimeError, match="STEP_GAP"):
        reasons_page.reasons_page()


def test_every_metric_has_a_sample_and_says_what_it_is() -> None:
    assert [family.name for family in families() if not family.samples or len(family.documentation) < 10] == []
    assert len(families()) > 25


def test_every_command_and_option_is_found() -> None:
    parser = argparse.ArgumentParser(prog="p")
    inner = parser.add_subparsers()
    inner.add_parser("one").add_subparsers().add_parser("deep")
    inner.add_parser("two")
    assert [found.prog for found in leaves(parser)] == ["p one deep", "p two"]
    page = (FOLDER / "commands.md").read_text()
    text = "how long to keep trying a server that refuses the connection (default: 0.8)"
    assert f"`--connect-timeout SECONDS` | {text}; raise it to wait for one that is starting" in page
    for words in ("cellkeeper stream", "cellkeeper sessions delete", "cellkeeper-server token new"):
        assert f"\n## {words}\n" in page
    commands = [found.prog for found in leaves(client_parser())]
    assert page.count("(#connection)") == len(commands) - 1  # all but doctor, which has no --endpoint
    assert page.count("`--endpoint ENDPOINT` |") == 1


def test_a_cell_ends_neither_its_row_nor_its_table() -> None:
    assert table(["a"], [["x | y\n\nz"]]) == "| a |\n| --- |\n| x \\| y z |\n"


def test_the_folder_is_where_the_site_looks() -> None:
    assert Path("docs/reference") == FOLDER.relative_to(FOLDER.parents[1])
