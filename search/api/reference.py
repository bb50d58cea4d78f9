"""The reference of every key of study and ablation files, read from their JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from search.ablation.schema import Ablation
from search.config.errors import UserError, nearest
from search.config.keys import UNIT, file_schema
from search.config.recipes import LIGHT, NNUNET
from search.config.schema import Study
from search.config.training_section import TrainingField
from search.config.validate import PATTERNS

STUDY, ABLATION = "study", "ablation"
ROOTS: Mapping[str, type] = {STUDY: Study, ABLATION: Ablation}
NOT_SET = "not set"
LIST = "list of "


@dataclass(frozen=True)
class Entry:
    """One key: its dotted name, the kinds of file that may contain it, and its field's description."""

    name: str
    files: tuple[str, ...]
    type: str
    unit: str
    default: str
    meaning: str
    example: Any
    is_group: bool

    @property
    def group(self) -> str:
        """The dotted name of the group that holds the key, empty at the top of a file."""
        return self.name.rpartition(".")[0]

    @property
    def type_and_unit(self) -> str:
        """The type, with its unit if it has one."""
        return f"{self.type} ({self.unit})" if self.unit else self.type

    @property
    def line(self) -> str:
        """The example as a line of a file."""
        return f"{self.name.rpartition('.')[2]}: {flow(self.example)}"


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON schema of the files of a kind. Raises UserError for an unknown kind."""
    if kind not in ROOTS:
        raise UserError([f"schema: {kind!r} is not a kind of file{nearest(kind, list(ROOTS))}"])
    return file_schema(ROOTS[kind], title=f"voxnas {kind}")


@cache
def all_keys() -> tuple[Entry, ...]:
    """Return all keys in the order of the files; a key with the same description in both kinds is listed once."""
    found: dict[Entry | str, Entry] = {}
    for kind in ROOTS:
        for entry in keys_of(schema_of(kind)):
            same = json.dumps([entry.name, entry.type, entry.default, entry.meaning])
            known = found.get(same, entry)
            found[same] = replace(known, files=(*known.files, kind))
    return tuple(found.values())


def keys_of(schema: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the keys of a file's JSON schema in its order. Raises ValueError for a field without a `Key`."""
    return _walk(schema, schema.get("$defs", {}), prefix="")


def find_keys(named: str) -> tuple[Entry, ...]:
    """Return the entries of a key, by its dotted name or the end of that name, and all below a group.

    Raises UserError with the nearest name for an unknown key.
    """
    entries = all_keys()
    exact = [each.name for each in entries if each.name == named]
    tops = exact or [each.name for each in entries if each.name.endswith(f".{named}")]
    if not tops:
        names = [each.name for each in entries]
        ends = {name.rpartition(".")[2]: name for name in reversed(names)}
        hint = nearest(named, names if "." in named else [*ends]).partition(" (allowed")[0]
        raise UserError([f"help: no key is called {named!r}{hint}; `voxnas help` lists all keys"])
    return tuple(each for each in entries if any(f"{each.name}.".startswith(f"{top}.") for top in tops))


def _walk(node: Mapping[str, Any], defs: Mapping[str, Any], *, prefix: str) -> Iterator[Entry]:
    """Yield the keys of an object of the schema, each before those inside it."""
    for key, field in node["properties"].items():
        name, inside = f"{prefix}{key}", _object_in(field, defs)
        if "examples" not in field:
            raise ValueError(f"the field of {name!r} has no Key in its annotation")
        yield Entry(
            name=name,
            files=(),
            type=type_text(field),
            unit=field.get(UNIT, ""),
            default=_default(name, field, required=key in node.get("required", ()), is_group=inside is not None),
            meaning=field["description"],
            example=field["examples"][0],
            is_group=inside is not None,
        )
        if inside is not None:
            yield from _walk(inside, defs, prefix=f"{name}.")


def _object_in(field: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the object that a field, one of its alternatives, or its items may be; None without one."""
    for option in (field, *field.get("anyOf", ()), field.get("items", {})):
        if "$ref" in option:
            found: Mapping[str, Any] = defs[option["$ref"].rpartition("/")[2]]
            return found
    return None


def _default(name: str, field: Mapping[str, Any], *, required: bool, is_group: bool) -> str:
    """Format the default of a key, by recipe if the recipes differ."""
    if required:
        return "required"
    if name == "training.recipe":
        return "auto"
    if name.startswith("training.") and not is_group:
        light, nnunet = (flow(_in_recipe(recipe, name)) for recipe in (LIGHT, NNUNET))
        return light if light == nnunet else f"{light}; {nnunet} in {NNUNET}"
    if "default" not in field and (is_group or field.get("type") == "object"):
        return "{}"  # for a group, the defaults of its keys
    return flow(field.get("default"))


@cache
def _recipe(name: str) -> Any:
    return TypeAdapter(TrainingField).validate_python({"recipe": name})


def _in_recipe(recipe: str, key: str) -> Any:
    holder = _recipe(recipe)
    for part in key.split(".")[1:]:
        holder = getattr(holder, part)
    return holder


def flow(value: Any) -> str:
    """Format a plain value as YAML on one line."""
    if value is None:
        return NOT_SET
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def type_text(field: Mapping[str, Any]) -> str:
    """Describe the type of a field of the schema."""
    if "anyOf" in field:
        options = [type_text(option) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(sorted(dict.fromkeys(options), key=lambda option: option.startswith(LIST)))
    if "const" in field or "enum" in field:
        return " or ".join(dict.fromkeys(flow(each) for each in field.get("enum", [field.get("const")])))
    kind = field.get("type", "any value")
    if "$ref" in field or kind == "object":
        return "mapping"
    if kind == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(type_text(each) for each in field["prefixItems"]) + "]"
        items = type_text(field.get("items", {}))
        return f"{LIST}({items})" if " or " in items else f"{LIST}{items}"
    if kind in ("integer", "number"):
        return f"{kind} {_bounds(field)}".strip()
    return (
        PATTERNS[field["pattern"]].removeprefix("use ")
        if "pattern" in field
        else {"string": "text", "boolean": "true or false"}.get(kind, kind)
    )


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {field[name]:.12g}" for name, sign in signs.items() if name in field)


def as_markdown() -> str:
    """Write the whole reference as a page: a table per group."""
    head = (
        "# Keys of study and ablation files\n\n"
        "Written by `make docs` from the schema; don't edit. `voxnas help KEY` shows the same in the terminal.\n"
        f"A key with the default *{NOT_SET}* is optional; its meaning describes what happens without it.\n"
        "`{}` is an empty mapping: the keys inside have their own defaults.\n"
        "A default of `training` that depends on the recipe is given for both.\n"
    )
    return "\n".join([head, *(_section(group) for group in dict.fromkeys(each.group for each in all_keys()))])


def _section(group: str) -> str:
    rows = [
        f"| `{each.name.rpartition('.')[2]}`{_only(each)} | {_cell(each.meaning)} | {_cell(each.type_and_unit)} "
        f"| {_cell(each.default)} | `{_cell(each.line)}` |"
        for each in all_keys()
        if each.group == group
    ]
    title = f"## `{group}`" if group else "## Top level"
    return "\n".join([title, "", "| Key | Meaning | Type | Default | Example |", "|---|---|---|---|---|", *rows, ""])


def _only(entry: Entry) -> str:
    return f" ({entry.files[0]} only)" if len(entry.files) == 1 and not entry.group else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
