"""Kept factors: a hit costs no factorisation, and any change of the numbers is seen."""

from __future__ import annotations

import copy
import gc
import math

import pytest
import torch

from implicitdsl.lowering.sets import Parametrization, cache, make

SETS = [make("SpectralBall", (6, 6), (0.9,)), make("Orth", (6, 6)), make("Stiefel", (7, 6))]


def calls(a_set: Parametrization, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every QR factorisation."""
    seen: list[int] = []
    original = torch.linalg.qr

    def counting(*args: torch.Tensor) -> object:
        seen.append(1)
        return original(*args)

    monkeypatch.setattr(torch.linalg, "qr", counting)
    return seen


@pytest.mark.parametrize("a_set", SETS, ids=lambda s: type(s).__name__)
def test_a_second_call_is_free_and_equal(a_set: Parametrization, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.nn.Parameter(a_set.default())
    count = calls(a_set, monkeypatch)
    with torch.no_grad():
        first, second = a_set.value(raw), a_set.value(raw)
    assert len(count) == 1
    assert torch.equal(first, second)
    second.zero_()  # results are nobody else's
    with torch.no_grad():
        assert torch.equal(a_set.value(raw), first)


def test_training_calls_share_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    a_set = SETS[0]
    raw = torch.nn.Parameter(a_set.default())
    count = calls(a_set, monkeypatch)
    for _ in range(3):
        a_set.value(raw).sum().backward()
    assert len(count) == 1
    assert raw.grad is not None


@pytest.mark.parametrize("a_set", SETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("how", ["in place", "data in place", "data replaced"])
def test_every_change_is_seen(a_set: Parametrization, how: str) -> None:
    torch.manual_seed(0)
    raw = torch.nn.Parameter(a_set.default())
    with torch.no_grad():
        a_set.value(raw)
        fresh = a_set.default()
        if how == "in place":
            raw.copy_(fresh)
        elif how == "data in place":
            raw.data.copy_(fresh)  # leaves the version counter alone
        else:
            raw.data = fresh
        assert torch.equal(a_set.value(raw), a_set.value(fresh.clone()))


def test_one_tensor_under_two_sets() -> None:
    raw = torch.nn.Parameter(torch.eye(6))
    wide, narrow = make("SpectralBall", (6, 6), (2.0,)), make("SpectralBall", (6, 6), (0.5,))
    assert torch.allclose(wide.value(raw), torch.eye(6) * 2 * math.sin(4 * math.atan(1 / 8)))
    assert torch.allclose(narrow.value(raw), torch.eye(6) * 0.5 * math.sin(4 * math.atan(1 / 2)))


def test_inference_mode_leaves_nothing_behind() -> None:
    a_set = SETS[0]
    raw = torch.nn.Parameter(a_set.default())
    with torch.inference_mode():
        a_set.value(raw)
    a_set.value(raw).sum().backward()
    assert raw.grad is not None


def test_entries_die_with_their_tensor() -> None:
    a_set = SETS[0]
    gc.collect()
    before = len(cache._entries)
    raw = torch.nn.Parameter(a_set.default())
    twin = copy.deepcopy(raw)
    a_set.value(raw)
    a_set.value(twin)
    assert len(cache._entries) == before + 2
    del raw, twin
    gc.collect()
    assert len(cache._entries) == before
