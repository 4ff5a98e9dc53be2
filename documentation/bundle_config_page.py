"""docs/reference/config-json.md and config.schema.json: what config.json of a bundle may hold."""

from __future__ import annotations

import json
from typing import Any

from cellkeeper_service.model.schema import CONFIG_SCHEMA, DEFINITIONS

from .markdown import code, table

INTRODUCTION = """# config.json

A bundle's `config.json` describes its model. An import writes it ([models](../models.md)); this page is for those who
read or write one themselves. [config.schema.json](config.schema.json) is the same as a JSON Schema. A key that is not
listed here is refused. The sections named by cells are whole files; the others are objects within them.

When the server loads a bundle, it also checks what several keys have to agree on: as many numbers and names as there
are features, `proj_size` below `hidden_size`, the batch axis within the shape, tensors with the shapes that follow.
"""


def bundle_config_page() -> str:
    """The page as Markdown."""
    return "\n".join([INTRODUCTION, *(_section(name, one) for name, one in DEFINITIONS.items())])


def schema_file() -> str:
    """The JSON Schema as a file."""
    return json.dumps(CONFIG_SCHEMA, indent=2) + "\n"


def _section(name: str, schema: dict[str, Any]) -> str:
    required = schema["required"]
    rows = [
        (
            code(key),
            _values(one),
            "required" if key in required else code(json.dumps(one["default"])) if "default" in one else "",
            one["description"],
        )
        for key, one in schema["properties"].items()
    ]
    description = schema["description"]
    text = f"{description[0].upper()}{description[1:]}."
    return f"## {name}\n\n{text}\n\n{table(('key', 'values', 'default', 'meaning'), rows)}"


def _values(schema: dict[str, Any]) -> str:
    """What the key may hold, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_values, schema["anyOf"]))
    if "allOf" in schema:
        return " or ".join(_values(one["then"]) for one in schema["allOf"])
    if schema["type"] == "integer":
        return f"{schema['minimum']} to {schema['maximum']}" if "maximum" in schema else "a whole number"
    if schema["type"] == "string":
        return f"string of 1 to {schema['maxLength']} characters"
    if schema["type"] == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {_values(schema['items'])}{most}"
    return str(schema["type"])
