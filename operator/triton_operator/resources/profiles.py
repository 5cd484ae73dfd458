"""Optimisation profiles: the shapes that a compiled engine takes."""

from typing import Annotated

from pydantic import ConfigDict, Field

from engine_builder.contract import ProfileInput
from triton_operator.resources.common import Model
from triton_operator.resources.schema import LIST_ATOMIC, Rule, list_map, rules

MOST_DIMENSIONS = 8
"""TensorRT's own limit."""

_ORDER = (
    f"[{', '.join(str(n) for n in range(MOST_DIMENSIONS))}].all(i, i >= size(self.min) || "
    "i >= size(self.opt) || i >= size(self.max) || (self.min[i] <= self.opt[i] && "
    "self.opt[i] <= self.max[i]))"
)

_Size = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Shape = Annotated[tuple[_Size, ...], Field(min_length=1, max_length=MOST_DIMENSIONS)]


class ShapeRange(Model):
    """The shapes of one input, the batch included."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "size(self.min) == size(self.opt) && size(self.opt) == size(self.max)",
                "min, opt and max of an input must have equally many dimensions: write all of them, the "
                "batch first",
            ),
            Rule(_ORDER, "min <= opt <= max must hold in every dimension of an input"),
        )
    )

    name: str = Field(min_length=1, max_length=256, description="Name of the input. Example: images")
    min: _Shape = Field(
        description="Smallest shape. Example: [1, 3, 640, 640]", json_schema_extra=LIST_ATOMIC
    )
    opt: _Shape = Field(
        description="Shape that the engine is made fastest for. Example: [8, 3, 640, 640]",
        json_schema_extra=LIST_ATOMIC,
    )
    max: _Shape = Field(
        description="Largest shape. Example: [16, 3, 640, 640]", json_schema_extra=LIST_ATOMIC
    )


class Profile(Model):
    """Shapes of all inputs whose shape isn't fixed."""

    inputs: Annotated[tuple[ShapeRange, ...], Field(min_length=1, max_length=32)] = Field(
        description="Inputs with dimensions that are free, each once.", json_schema_extra=list_map("name")
    )

    def to_contract(self) -> tuple[ProfileInput, ...]:
        """Return the profile as the compile stage takes it."""
        return tuple(ProfileInput(each.name, each.min, each.opt, each.max) for each in self.inputs)
