"""Key: the documentation of a field of study and ablation files, and the JSON schema of these files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
UNIT = "x-unit"
SCALES: dict[str, dict[str, Any]] = {  # applied to the file before the schema sees it; see `yaml_source`
    "scale": {
        "type": "string",
        "description": "Name of the set of overrides under `scales` to apply. Without it, none is applied.",
        "examples": ["small"],
    },
    "scales": {
        "type": "object",
        "additionalProperties": {"type": "object"},
        "description": "Named sets of overrides, each a mapping of dotted keys to values. Without it, there are none.",
        "examples": [{"small": {"training.epochs": 2}}],
    },
}


@dataclass(frozen=True, eq=False)
class Key:
    """The meaning of a field, in its annotation: `epochs: Annotated[int, Key("...", example=50)]`.

    `also` are JSON schemas of short forms that the file may use and a validator completes.
    """

    meaning: str
    example: Any
    unit: str = ""
    also: tuple[Mapping[str, Any], ...] = ()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Write the key into the JSON schema of its field."""
        schema: dict[str, Any] = handler(core)
        if self.also:
            schema = {"anyOf": [*schema.get("anyOf", [schema]), *map(dict, self.also)]}
        unit = {UNIT: self.unit} if self.unit else {}
        return {**schema, "description": self.meaning, "examples": [self.example], **unit}


def file_schema(root: type, *, title: str) -> dict[str, Any]:
    """Return the JSON schema of the files that are read as the dataclass `root`."""
    schema = TypeAdapter(root).json_schema()
    properties = schema["properties"]
    required = [name for name in schema["required"] if name != "name"]  # the file's own name by default
    named = {"$schema": DIALECT, "title": title}
    return {**named, **{**schema, "title": title, "properties": {**properties, **SCALES}, "required": required}}
