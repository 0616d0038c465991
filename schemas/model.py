"""The base of everything that crosses a wire: frozen, snake_case in Python, camelCase on the wire."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class WireModel(BaseModel):
    """A frozen model whose validation errors never repeat what was in the input."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        extra="ignore",  # a newer writer may know more fields than we do
    )
