"""THE page of registration: every function and every family of the language, in order of preference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from implicitdsl.ground.records import dataclass

from .families.equilibrium.methods import EQUILIBRIUM
from .families.ode.methods import ODE
from .families.optimum.methods import OPTIMUM
from .functions import FUNCTIONS
from .ground.methods import Family, Method
from .ir.function import Function


@dataclass(frozen=True)
class Language:
    """What a spec may say. Immutable: `with_…` gives a new language, to be passed as `compile(text, language=…)`."""

    functions: tuple[Function, ...]
    families: tuple[Family, ...]

    def with_function(self, function: Function) -> Language:
        """Add a function, or replace the one of the same name."""
        others = tuple(f for f in self.functions if f.name != function.name)
        return replace(self, functions=(*others, function))

    def with_solver(self, method: Method) -> Language:
        """Add a solver or backward rule to its sentence, preferred to all others that suit; the same name is replaced.

        Raises KeyError for a sentence that no family owns.
        """
        family = self.family(method.sentence)
        others = tuple(m for m in family.methods if (m.name, m.role) != (method.name, method.role))
        return self.with_family(replace(family, methods=(method, *others)))

    def with_family(self, family: Family) -> Language:
        """Add a family, or replace the one that owns the same sentence."""
        if family.sentence not in {f.sentence for f in self.families}:
            return replace(self, families=(*self.families, family))
        return replace(self, families=tuple(family if f.sentence == family.sentence else f for f in self.families))

    @property
    def function_table(self) -> Mapping[str, Function]:
        """Functions by name."""
        return {f.name: f for f in self.functions}

    def family(self, sentence: str) -> Family:
        """The family that owns a sentence. Raises KeyError."""
        for family in self.families:
            if family.sentence == sentence:
                return family
        raise KeyError(sentence)

    def method(self, sentence: str, role: str, name: str) -> Method | None:
        """A method by name, or None."""
        return next((m for m in self.methods(sentence, role) if m.name == name), None)

    def methods(self, sentence: str, role: str) -> tuple[Method, ...]:
        """The forward or backward methods of a sentence, in order of preference; none where no family owns it."""
        owners = [f for f in self.families if f.sentence == sentence]
        return tuple(m for f in owners for m in f.methods if m.role == role)


LANGUAGE = Language(functions=FUNCTIONS, families=(EQUILIBRIUM, ODE, OPTIMUM))
