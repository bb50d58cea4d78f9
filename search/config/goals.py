"""The section `objectives` of a study: a key for each entry of OBJECTIVES."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BeforeValidator, Field

from search.config.augment import STRICT
from search.config.errors import nearest
from search.config.keys import Key
from search.config.objectives import OBJECTIVES, Direction, Objective
from search.config.units import IN_BYTES, IN_COUNTS, IN_SECONDS, parse_bytes, parse_count, parse_seconds

T = TypeVar("T")
BUDGETS: Mapping[Callable[[Any], float], tuple[str, str]] = {  # what reads a budget: its unit, an example
    parse_bytes: (IN_BYTES, "4 GiB"),
    parse_seconds: (IN_SECONDS, "50 ms"),
    parse_count: (IN_COUNTS, "50 M"),
}


def _goal_type(objective: Objective) -> Any:
    """Return the type of an objective's section: its direction or `record`, and a budget if the objective takes one."""

    def checked(direction: Any) -> Any:
        allowed = (objective.direction, "record")
        if direction in allowed:
            return direction
        if direction in get_args(Direction):
            problem = f"{objective.heading} can't be {direction}d (allowed: {', '.join(allowed)})"
            better = "higher" if objective.is_maximized else "lower"
            raise ValueError(f"{problem}; {better} values are always better")
        raise ValueError(f"{direction!r} is not known{nearest(direction, allowed)}")

    allowed = Field(json_schema_extra={"enum": [objective.direction, "record"]})
    meaning = f"Whether to {objective.direction} {objective.heading}, or only to record the value."
    goal = Key(meaning + (" A budget applies in both cases." if objective.parse else ""), objective.direction)
    direction = Annotated[str, BeforeValidator(checked), allowed, goal]
    fields: list[Any] = [("direction", direction, objective.direction)]
    if objective.parse:
        unit, example = BUDGETS[objective.parse]
        meaning = "A network above this is never trained. Without it, there is no limit."
        parsed = Annotated[float, BeforeValidator(objective.parse, json_schema_input_type=float | str)] | None
        fields.append(("budget", Annotated[parsed, Key(meaning, example, unit)], None))
    named = objective.name.title().replace("_", "") + "Goal"
    return make_dataclass(named, fields, frozen=True, namespace={"__pydantic_config__": STRICT, "__module__": __name__})


def _direction_alone(value: Any) -> Any:
    """Expand the short forms `memory: minimize` and `memory:` to a mapping."""
    if value is None:
        return {}
    return {"direction": value} if isinstance(value, str) else value


GOALS: dict[str, Any] = {name: _goal_type(each) for name, each in OBJECTIVES.items()}
globals().update({goal.__name__: goal for goal in GOALS.values()})  # pickle finds classes by module and name


def _key_of(objective: Objective) -> Key:
    example: Any = objective.direction
    if objective.parse:
        example = {"direction": objective.direction, "budget": BUDGETS[objective.parse][1]}
    short = {"enum": [objective.direction, "record"]}
    return Key(f"{objective.meaning} Without it, the value is recorded.", example, also=(short,))


def _one_key_per_objective(cls: type[T]) -> type[T]:
    """Make a dataclass with a field per entry of OBJECTIVES; None if the study omits the objective."""
    cls.__annotations__ = {
        name: Annotated[goal | None, BeforeValidator(_direction_alone), _key_of(OBJECTIVES[name])]
        for name, goal in GOALS.items()
    }
    for name in GOALS:
        setattr(cls, name, None)
    return dataclass(frozen=True)(cls)


@_one_key_per_objective
class Objectives:
    """Objectives to optimise, to limit (`budget`) or only to record; omitted objectives are recorded."""

    __pydantic_config__ = STRICT

    @property
    def goals(self) -> dict[str, Any]:
        """The listed objectives, each with its direction and, if given, its budget."""
        return {name: goal for name, goal in vars(self).items() if goal is not None}

    @classmethod
    def of(cls, *names: str) -> Objectives:
        """Return these objectives, each optimised in its natural direction."""
        return cls(**{name: GOALS[name]() for name in names})
