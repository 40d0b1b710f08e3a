"""The part of a layer that owns tensors: parameters on sets, constants, dimensions, saving and moving them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from implicitdsl.ground.errors import ShapeError
from implicitdsl.ir.model import Model, Symbol

from . import sets
from .inputs import declaration
from .parameters import Slot, fill, in_range, is_placeholder
from .sizes import Observation, Size, infer, missing


class Holder(nn.Module):
    """Parameters by their names in the spec (raw in `parameters()` and `state_dict`), buffers, sub-modules, sizes."""

    def __init__(self, model: Model, sizes: Mapping[str, int], bindings: Mapping[str, Any]) -> None:
        super().__init__()
        self._model = model
        self._title = model.name or "layer"
        self._dims = dimensions(model)
        for name in sizes.keys() - set(self._dims):
            raise TypeError(f"{self._title} has no dimension `{name}`; it has {', '.join(self._dims) or 'none'}")
        self._origins: dict[str, Size] = {n: Size(int(v), "compile") for n, v in sizes.items()}
        self.sizes: dict[str, int] = {n: s.value for n, s in self._origins.items()}
        self._cores: tuple[tuple[int, ...], ...] = ()
        self._exact: dict[str, object] = {}
        slots = {s.name: Slot(s, "param", model.source) for s in model.params}
        constants = {s.name: Slot(s, "const", model.source) for s in model.consts}
        for name in slots:
            self.register_parameter(name, cast(nn.Parameter, UninitializedParameter()))
        for name, slot in constants.items():
            self.register_buffer(name, UninitializedBuffer())
            value = bindings.get(name, slot.symbol.init.literal)
            if value is None and slot.symbol.init.kind == "default":
                raise TypeError(f"`{slot.where}` has no value: pass {name}=… to compile")
            if value is not None:
                self._exact[name] = value
        for opaque in model.opaques:
            if opaque.name not in bindings:
                known = f"torch.{opaque.name}" if callable(getattr(torch, opaque.name, None)) else "…"
                raise TypeError(f"`fn {opaque.name}` is not bound: pass {opaque.name}={known} to compile")
            if not callable(bindings[opaque.name]):
                raise TypeError(f"`fn {opaque.name}` takes a module or a function, not {bindings[opaque.name]!r}")
            if isinstance(bindings[opaque.name], type):
                kind = bindings[opaque.name].__name__
                raise TypeError(f"`fn {opaque.name}` takes a module, not its class: pass {opaque.name}={kind}(…)")
            setattr(self, opaque.name, bindings[opaque.name])
        self._constants, self._slots = constants, slots
        for name, value in self._exact.items():
            if isinstance(value, Tensor):
                self._observe(constants[name].observed(tuple(value.shape), self._origins))

    # -- dimensions ----------------------------------------------------------------------------------------------------

    def _observe(self, origins: Mapping[str, Size]) -> None:
        self._origins = dict(origins)
        self.sizes = {n: s.value for n, s in self._origins.items()}

    def _infer(self, observations: Sequence[Observation]) -> None:
        self._observe(infer(self._origins, observations))

    def _settle(self, *, complete: bool = False) -> None:
        """Give tensors whose dimensions are known their shapes and values; with all known, the layer is ready.

        Raises ShapeError if `complete` is asked for and a dimension is still open.
        """
        open_dims = [d for d in self._dims if d not in self.sizes]
        if complete and open_dims:
            raise missing(open_dims)
        for name, slot in (self._slots | self._constants).items():
            held = self._raw(name)
            if not slot.settle(self.sizes):
                continue
            assert slot.set is not None
            if is_placeholder(held):
                if name in self._exact:
                    self._buffers[name] = slot.raw(
                        slot.given(self._exact[name], _dtype(self._exact[name]), held.device)
                    )
                    if isinstance(self._exact[name], Tensor):
                        del self._exact[name]
                else:
                    fill(held, slot.initial(held.dtype, held.device))
            elif tuple(held.shape) != slot.set.raw_shape:
                raise ShapeError(f"`{slot.where}`: expected raw shape {slot.set.raw_shape}, holds {tuple(held.shape)}")
        if open_dims:
            return
        in_range(self._model, self.sizes)
        self._cores = tuple(tuple(d.evaluate(self.sizes) for d in s.shape) for s in self._model.givens)
        for opaque in self._model.opaques:
            inner = self._modules.get(opaque.name)
            if opaque.layer is not None and isinstance(inner, Holder):
                inner._observe(
                    {
                        **inner._origins,
                        **{n: Size(d.evaluate(self.sizes), f"let {opaque.name}") for n, d in opaque.sizes},
                    }
                )
                inner._settle()
        self._ready()

    def _ready(self) -> None:
        """Called whenever all dimensions are known."""

    # -- values --------------------------------------------------------------------------------------------------------

    def _raw(self, name: str) -> Tensor:
        found = self._parameters.get(name)
        if found is None:
            found = self._buffers[name]
        assert found is not None
        return found

    def _held_values(self, symbols: Sequence[Symbol], first: Tensor | None) -> dict[str, Tensor]:
        """Parameters on their sets and constants, in the dtype and on the device of the inputs.

        Raises ShapeError naming the declarations where a parameter has another dtype or device.
        """
        values: dict[str, Tensor] = {}
        for name, slot in self._slots.items():
            raw = self._parameters[name]
            assert raw is not None
            if first is not None and (raw.dtype != first.dtype or raw.device != first.device):
                raise _differ(symbols[0], first, slot, raw)
            values[name] = slot.value(raw)
        for name, slot in self._constants.items():
            held = self._buffers[name]
            assert held is not None
            if first is not None and (held.dtype != first.dtype or held.device != first.device):
                if name not in self._exact:
                    raise _differ(symbols[0], first, slot, held)
                held = slot.given(self._exact[name], first.dtype, first.device)
            values[name] = held
        return values

    def _uncast(self, values: Sequence[Any]) -> list[Any]:
        """Inputs under autocast, in the dtype of the parameters: a solve needs its precision."""
        held = next((p for p in self._parameters.values() if p is not None), None)
        kind = torch.float32 if held is None else held.dtype
        return [v.to(kind) if isinstance(v, Tensor) and v.is_floating_point() else v for v in values]

    def _check_sets(self, values: Mapping[str, Tensor]) -> None:
        """Inputs lie in their sets. Raises ValueError naming the first that does not, and its first sample."""
        for symbol, core in zip(self._model.givens, self._cores, strict=True):
            inside = sets.make(symbol.set.name, core, symbol.set.args).contains(values[symbol.name])
            if not bool(inside.all()):
                sample = int((~inside).flatten().int().argmax())
                where = f" in sample {sample}" if inside.dim() else ""
                raise ValueError(f"`{declaration(symbol)}`: the input lies outside its set{where}")

    # -- attributes ----------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """`layer.W` is the value on its set."""
        slots = self.__dict__.get("_slots")
        if slots and name in slots:
            raw = self.__dict__["_parameters"][name]
            return raw if is_placeholder(raw) else slots[name].value(raw)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning to a parameter or constant checks shape and membership, and stores the raw value in place.

        An `nn.Parameter` is taken as the raw one: that is what tools which swap parameters assign.
        """
        slots = self.__dict__.get("_slots")
        if slots and name in slots and isinstance(value, nn.Parameter):
            self._replace(slots[name], value)
        elif slots and name in slots:
            self._assign(slots[name], value)
        elif slots is not None and name in self._constants:
            self._exact.pop(name, None)
            self._assign(self._constants[name], value)
            if not isinstance(value, Tensor):
                self._exact[name] = value
        else:
            super().__setattr__(name, value)

    def _replace(self, slot: Slot, raw: nn.Parameter) -> None:
        if slot.plain:
            self._observe(slot.observed(tuple(raw.shape), self._origins))
        if slot.settle(self.sizes) and slot.set is not None and tuple(raw.shape) != slot.set.raw_shape:
            raise ShapeError(f"`{slot.where}`: its raw shape is {slot.set.raw_shape}, got {tuple(raw.shape)}")
        super().__setattr__(slot.symbol.name, raw)

    def _assign(self, slot: Slot, value: Any) -> None:
        held = self._raw(slot.symbol.name)
        if isinstance(value, Tensor):
            self._observe(slot.observed(tuple(value.shape), self._origins))
        if not slot.settle(self.sizes):
            raise missing(sorted({n for d in slot.symbol.shape for n in d.names} - self.sizes.keys()))
        raw = slot.raw(slot.given(value, held.dtype, held.device).detach())
        if is_placeholder(held):
            fill(held, raw)
        else:
            with torch.no_grad():
                held.copy_(raw)

    def get_parameter(self, target: str) -> nn.Parameter:
        """The raw parameter."""
        own = self._parameters.get(target)
        return super().get_parameter(target) if own is None else own

    def extra_repr(self) -> str:
        return ", ".join(f"{n} = {v}" for n, v in self.sizes.items())

    # -- saving and moving ---------------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Holder:
        """As in nn.Module; constants written as numbers are rounded from the number again, not from its rounding."""
        before = {name: self._raw(name).dtype for name in self._exact}
        super()._apply(fn, recurse)
        for name, dtype in before.items():
            held = self._raw(name)
            if held.dtype != dtype and not is_placeholder(held):
                self._buffers[name] = self._constants[name].given(self._exact[name], held.dtype, held.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """As in nn.Module; a tensor whose shape is not known yet is saved as it is, as torch's lazy modules do."""
        for name, held in [*self._parameters.items(), *self._buffers.items()]:
            if held is not None:
                destination[prefix + name] = held if keep_vars or is_placeholder(held) else held.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As in nn.Module; tensors whose shape is not known yet take that of what is loaded."""
        for name, slot in (self._slots | self._constants).items():
            incoming = state_dict.get(prefix + name)
            if incoming is None or is_placeholder(incoming):
                continue
            held = self._raw(name)
            if is_placeholder(held):
                if slot.plain:
                    try:
                        self._observe(slot.observed(tuple(incoming.shape), self._origins))
                    except ShapeError as error:
                        error_msgs.append(str(error))
                        continue
                fill(held, incoming)
            if name in self._exact and not torch.equal(held.to(incoming), incoming):
                del self._exact[name]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not error_msgs:
            self._settle()


def _dtype(value: object) -> torch.dtype:
    """The dtype of a constant: its own if it is a floating tensor."""
    return value.dtype if isinstance(value, Tensor) and value.is_floating_point() else torch.get_default_dtype()


def dimensions(model: Model) -> tuple[str, ...]:
    """Every dimension name: the layer's, then those that only shapes mention."""
    symbols = [*model.givens, *model.params, *model.consts, *(u for b in model.blocks for u in b.unknowns)]
    shapes = [s.shape for s in symbols] + [s for o in model.opaques for s in (*o.args, *o.results)]
    names = [n for shape in shapes for d in shape for n in sorted(d.names)]
    return tuple(dict.fromkeys([*model.dims, *names]))


def _differ(symbol: Symbol, tensor: Tensor, slot: Slot, held: Tensor) -> ShapeError:
    if held.dtype != tensor.dtype:
        kind = str(tensor.dtype).removeprefix("torch.")
        return ShapeError(
            f"`{declaration(symbol)}` is {tensor.dtype}, but `{slot.where}` is {held.dtype}: "
            f"convert one of them, e.g. `layer.to(torch.{kind})`"
        )
    return ShapeError(
        f"`{declaration(symbol)}` is on {tensor.device}, but `{slot.where}` is on {held.device}: "
        f"move one of them, e.g. `layer.to({str(tensor.device)!r})`"
    )
