"""What is checked of a user's model before it is built: its functions and floors. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_vq.errors import RegistrationError
from pytest_vq.registering import check_takes
from pytest_vq.schema.spec import MakeInputs, MakeLabelled, TakeOutput


def check_functions(
    name: str, inputs: MakeInputs | None, output: TakeOutput | None, labelled: MakeLabelled | None
) -> None:
    """Refuse functions that cannot be called as a model's must be. Raises RegistrationError."""
    what = f"model {name!r}"
    if inputs is not None:
        meaning = "inputs= takes one that makes what the model is called with"
        check_takes(what, inputs, ("batch", "generator"), meaning)
    if output is not None:
        meaning = "output= takes one that makes one tensor [batch, ...] of what the model returns"
        check_takes(what, output, ("what the model returns",), meaning)
    if labelled is not None:
        check_takes(what, labelled, (), "labelled= takes one that returns inputs and their labels")


def check_floors(name: str, min_sqnr_db: Mapping[str, float] | None) -> None:
    """Refuse floors that are not numbers by precision. Raises RegistrationError."""
    if min_sqnr_db is None:
        return
    if not isinstance(min_sqnr_db, Mapping) or not all(
        isinstance(key, str) and isinstance(value, int | float) and not isinstance(value, bool)
        for key, value in min_sqnr_db.items()
    ):
        raise RegistrationError(
            f"model {name!r}: min_sqnr_db={min_sqnr_db!r} is no floor for each precision: give a dict, as "
            '{"int8": 20.0, "int4": 6.0}'
        )
