"""The torch-free list of reserved names is that of the torch which runs."""

from __future__ import annotations

import torch

from implicitdsl.ground.reserved import LAYER, MODULE, RESERVED


def test_reserved_names_are_those_of_a_module() -> None:
    found = frozenset(name for name in dir(torch.nn.Module()) if not name.startswith("___"))  # Dynamo's patches
    assert found == MODULE
    assert {"half", "to", "forward", "solve"} <= RESERVED
    assert not LAYER & MODULE
