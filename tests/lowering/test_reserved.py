"""The torch-free lists of reserved names are those of the torch and the layer that run."""

from __future__ import annotations

import torch
from models import DENSE, layer

from implicitdsl.ground.reserved import LAYER, MODULE, RESERVED


def names(module: torch.nn.Module) -> frozenset[str]:
    return frozenset(name for name in dir(module) if not name.startswith("___"))  # Dynamo adds and removes some


def test_reserved_names_are_those_of_a_module() -> None:
    assert names(torch.nn.Module()) == MODULE
    assert {"half", "to", "forward", "solve"} <= RESERVED


def test_reserved_names_are_those_of_a_layer() -> None:
    assert names(layer(DENSE, sizes={"n": 2, "m": 3})) - MODULE - {"U", "W", "b"} == LAYER
