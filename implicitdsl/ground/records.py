"""Dataclasses that cost little to define.

`dataclasses.dataclass` compiles up to six methods a class as soon as it is defined, 0.4–0.8 ms: for the classes that
`check` imports that is a third of its time, though most of them are never made. Here the constructor is compiled when
the first instance is made, and the other methods are written once. To readers and type checkers it is `dataclass`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False):
        """As `dataclasses.dataclass`: same fields, `replace`, `match`, `==`, `hash`, pickle and errors.

        Left out, since nothing here needs them: order, kw_only, InitVar and fields that are not arguments.
        """

        def decorate(cls: type) -> type:
            own = set(vars(cls))
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            for name, method in (_methods(made) | (_frozen(made, slots) if frozen else {"__hash__": None})).items():
                if name not in own:
                    setattr(made, name, method)
            return made

        return decorate if cls is None else decorate(cls)


def _methods(cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    shown = [f.name for f in fields if f.repr]
    compared = [f.name for f in fields if f.compare]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        method = _constructor(cls)
        cls.__init__ = method  # from the second instance on
        method(self, *args, **kwargs)

    def show(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{n}={getattr(self, n)!r}' for n in shown)})"

    def eq(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or all(getattr(self, n) == getattr(other, n) for n in compared)

    return _named(cls, init=init, repr=show, eq=eq)


def _frozen(cls: type, slots: bool) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(cls)]
    compared = [f.name for f in dataclasses.fields(cls) if f.compare]

    def digest(self: Any) -> int:
        return hash(tuple([getattr(self, n) for n in compared]))

    def refuse_set(self: Any, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def refuse_delete(self: Any, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def getstate(self: Any) -> list[Any]:
        return [getattr(self, n) for n in names]

    def setstate(self: Any, state: list[Any]) -> None:  # pickle would assign slots
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    state = {"getstate": getstate, "setstate": setstate} if slots else {}
    return _named(cls, hash=digest, setattr=refuse_set, delattr=refuse_delete, **state)


def _named(cls: type, **methods: Any) -> dict[str, Any]:
    special = {f"__{name}__": method for name, method in methods.items()}
    for name, method in special.items():
        method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"
    return special


def _constructor(cls: type) -> Any:
    """`__init__`, compiled: one `object.__setattr__` a field, defaults bound in the signature, then `__post_init__`."""
    space: dict[str, Any] = {"_set": object.__setattr__, "_made": _MADE}
    signature, body = ["self"], list[str]()
    for f in dataclasses.fields(cls):
        value = f.name
        if f.default is not dataclasses.MISSING:
            space[f"_default_{f.name}"] = f.default
            signature.append(f"{f.name}=_default_{f.name}")
        elif f.default_factory is not dataclasses.MISSING:
            space[f"_factory_{f.name}"] = f.default_factory
            signature.append(f"{f.name}=_made")
            value = f"_factory_{f.name}() if {f.name} is _made else {f.name}"
        else:
            signature.append(f.name)
        body.append(f"_set(self, {f.name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    exec(f"def __init__({', '.join(signature)}):\n " + "\n ".join(body or ["pass"]), space)
    method = space["__init__"]
    method.__qualname__ = f"{cls.__qualname__}.__init__"
    return method


_MADE = object()
"""Stands for a default that a factory makes."""
