"""Bounds of conic programs so far away that they say "none": solved with nearer ones, which must not bind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .cones import Cones

APART = 1e5
"""A bound so many times as far as the nearest is drawn nearer."""
NEARER = 1e4
"""To so many times the nearest, then to that many times as far, until it does not bind."""


class Drawn(NamedTuple):
    """b (B, m) with nearer bounds, and by how much each is nearer."""

    b: Tensor
    by: Tensor


def heads(cones: Cones) -> Tensor:
    """The entries that only bound others: numbers, and the first of second-order cones."""
    at = torch.arange(cones.zero, cones.zero + cones.nonneg)
    return torch.cat([at, cones.zero + cones.nonneg + cones.padded[0][:, 0]]) if cones.second else at


def drawn(cones: Cones, A: Tensor, b: Tensor, times: float) -> Drawn | None:
    """b with the bounds drawn to `times` the nearest of all rows; None where none is so far."""
    place = heads(cones).to(b.device)
    if not len(place):
        return None
    norm = torch.linalg.vector_norm(A, dim=-1)
    far = (b.abs() / norm).nan_to_num(0, 0, 0)  # how far away a row is; zero where it says nothing
    if cones.second:  # the first row may be constant: then the others say in which unit it is
        first = cones.zero + cones.nonneg
        scale = norm[..., first : first + sum(cones.second)]
        unit = cones.pad(scale.unsqueeze(0) if scale.ndim == 1 else scale).amax(-1)
        at = place[cones.nonneg :]
        own = (b[..., at].abs() / (unit.squeeze(0) if scale.ndim == 1 else unit)).nan_to_num(0, 0, 0)
        far = far.expand(*own.shape[:-1], far.shape[-1]).index_copy(-1, at, own)
    nearest = torch.where(far > 0, far, torch.inf).amin(-1, keepdim=True)
    bound, distance = b[..., place].expand(*far.shape[:-1], len(place)), far[..., place]
    share = times * nearest / distance
    near = torch.where((distance > APART * nearest) & (bound > 0) & (share < 1), bound * share, bound)
    if not bool((near < bound).any()):
        return None
    whole = b.expand(far.shape).index_copy(-1, place, near)
    return Drawn(whole, b - whole)


def binding(cones: Cones, w: Tensor, by: Tensor) -> Tensor:
    """Where a bound that was drawn nearer holds a sample, (B,): w = s − y is not within its cone, or on its edge."""
    first = cones.zero + cones.nonneg
    moved = by > 0
    held = (moved[:, cones.zero : first] & ~(w[:, cones.zero : first] > 0)).any(-1)
    if cones.second:
        q = cones.pad(w[:, first : first + sum(cones.second)])
        idle = q[..., 0] > torch.linalg.vector_norm(q[..., 1:], dim=-1)
        held = held | (moved[:, heads(cones)[cones.nonneg :].to(w.device)] & ~idle).any(-1)
    return held
