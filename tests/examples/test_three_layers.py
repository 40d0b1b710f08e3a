"""Three layers as one recurrent layer: equal outputs, equal gradients, at rest after three steps."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples/three_layers/train.py"


def test_the_recurrent_layer_is_the_deep_network(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    for form in ("Shifted", "Stacked"):
        assert result[f"{form}_output"] < 1e-14
        assert result[f"{form}_gradient"] < 1e-14
        assert result[f"{form}_steps"] <= 3
    assert result["trained_steps"] <= 3
    assert result["remarks"] == ["splits into 3 smaller systems: z1, then z2, then z3"]
    for step, layers in enumerate(result["distances"]):  # in every step one more layer is right
        assert max(layers[:step], default=0.0) < 1e-14
        assert min(layers[step:], default=1.0) > 1e-3
    assert result["apart"] < 1e-10
    assert result["accuracy"] > 0.75
    assert picture.stat().st_size > 10_000
