"""One try at a layer with given ranks: declarations into scope, every section elaborated, findings collected."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import field

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.reserved import RESERVED
from implicitdsl.ground.source import Source, Span
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Bound, Model, OutputValue, SetInfo, Wishes
from implicitdsl.ir.nodes import Expr, Role, sym
from implicitdsl.syntax import ast

from .bare import Filling
from .blocks import Pending, check_find, elaborate_find
from .calls import Calls
from .context import Context
from .initial import read_init
from .opaques import declare_fn, declare_layer
from .optimum import check_argmin, elaborate_argmin
from .outputs import read_outputs
from .parts import range_checks
from .report import Report
from .scope import Entity, Language, Scope
from .sets import SetReader
from .shapes import Dims
from .using import read_using, slots_for

CONVENTION_CODES = ("IMP1", "IMP7", "IMP9")


@dataclass
class Attempt:
    """What came of it."""

    layer: ast.Layer
    context: Context
    scope: Scope
    filling: Filling
    language: Language
    blocks: list[Pending] = field(default_factory=list[Pending])
    wishes: list[Wishes] = field(default_factory=list[Wishes])
    outputs: list[OutputValue] = field(default_factory=list[OutputValue])
    bounds: list[Bound] = field(default_factory=list[Bound])

    @property
    def badness(self) -> int:
        """Errors that another choice of ranks might avoid."""
        return sum(d.is_error and not d.code.startswith(CONVENTION_CODES) for d in self.context.report.diagnostics)


def attempt(
    layer: ast.Layer,
    filling: Filling,
    source: Source,
    language: Language,
    models: Mapping[str, Model | None],
    guess: dict[str, int],
) -> Attempt:
    """Elaborate a layer under a guess."""
    report = Report(source)
    dims, scope = Dims(), Scope()
    bare = layer.name is None
    sets = SetReader(report, scope, dims, bare, [])
    context = Context(report, dims, {f.name: f for f in language.functions}, sets, bare, layer.broken, guess)
    context.layers = frozenset(models)
    tried = Attempt(layer, context, scope, filling, language)
    declarer = Declarer(tried, models)
    declarer.run()
    calls = Calls(context, scope)
    blocks_with_using: list[tuple[Pending, list[ast.Using]]] = []
    layer_using: list[ast.Using] = []
    for section in layer.sections:
        match section:
            case ast.Find():
                pending = elaborate_find(calls, section)
                if pending is not None:
                    blocks_with_using.append((pending, []))
            case ast.Argmin():
                blocks_with_using.append((elaborate_argmin(calls, section), []))
            case ast.Using():
                (blocks_with_using[-1][1] if blocks_with_using else layer_using).append(section)
            case _:
                pass
    for section in layer.sections:
        if isinstance(section, ast.Where):
            for item in section.items:
                if item.params is None and item.name.text not in context.definitions:
                    entity = scope.find(item.name.text)
                    if entity is not None and entity.definition is item:
                        calls.definition(entity)
    for pending, usings in blocks_with_using:
        unknowns = tuple(u.node for u in pending.unknowns)
        families = tuple(language.families)
        slots = slots_for(usings, layer_using, pending.sentence, {p.sentence for p, _ in blocks_with_using}, families)
        wishes = read_using(calls, slots, pending.sentence, families, unknowns)
        method = wishes.forward.method if wishes.forward else ""
        if isinstance(pending.section, ast.Find):
            check_find(calls, pending, method == "levenberg_marquardt")
        else:
            check_argmin(calls, pending, method == "nlp")
        tried.blocks.append(pending)
        tried.wishes.append(wishes)
    tried.outputs = read_outputs(calls, layer, tried.blocks)
    tried.bounds = range_checks(context)
    return tried


class Declarer:
    """Puts all declarations of a layer into its scope, in two rounds: sets, then initial values."""

    def __init__(self, tried: Attempt, models: Mapping[str, Model | None]) -> None:
        self.tried = tried
        self.models = models
        self.context = tried.context
        self.scope = tried.scope
        self.report = tried.context.report
        self.normal: dict[str, str] = {}

    def run(self) -> None:
        layer, filling = self.tried.layer, self.tried.filling
        for ident in layer.dims:
            if self.fresh(ident):
                self.scope.names[ident.text] = Entity("dim", ident.text, ident.span)
                self.context.dims.introduced[ident.text] = ident.span
        for name, span in filling.givens.items():
            self.tensor("given", ast.Ident(span, name), None, filled=True)
        for name, span in filling.params.items():
            self.tensor("param", ast.Ident(span, name), None, filled=True, definite=name in filling.definite)
        for section in layer.sections:
            match section:
                case ast.Given():
                    for item in section.items:
                        self.tensor("given", item.name, item.set)
                        if item.init is not None:
                            self.report.add(
                                "IMP113",
                                f"input `{item.name.text}` can't have a value here",
                                item.init.span,
                                help=f"`const {item.name.text} … = …` has one; `where` defines a quantity",
                            )
                case ast.Param():
                    for item in section.items:
                        self.tensor("param", item.name, item.set, item.init)
                case ast.Const():
                    for item in section.items:
                        self.tensor("const", item.name, item.set, item.init)
                case ast.Fn():
                    for item in section.items:
                        if self.fresh(item.name, attribute=True):
                            self.scope.names[item.name.text] = declare_fn(self.context, item)
                case ast.Let():
                    for item in section.items:
                        if self.fresh(item.name, attribute=True):
                            self.scope.names[item.name.text] = declare_layer(self.context, item, self.models)
                case ast.Where():
                    for item in section.items:
                        self.arguments_differ(item)
                        if self.fresh(item.name):
                            kind = "definition" if item.params is None else "macro"
                            self.scope.names[item.name.text] = Entity(
                                kind, item.name.text, item.name.span, definition=item
                            )
                case ast.Find():
                    for u in section.unknowns:
                        self.unknown(u)
                case ast.Argmin():
                    for u in section.unknowns:
                        self.unknown(u)
                case _:
                    pass
        for name, span in filling.fns.items():
            self.scope.names[name] = Entity("fn", name, span, filled=True)

    def arguments_differ(self, item: ast.Definition) -> None:
        """IMP102 for two arguments of one name, `where H(a, a) = …`."""
        first: set[str] = set()
        for ident in item.params or ():
            if ident.text in first:
                self.report.add("IMP102", f"argument `{ident.text}` is declared twice", ident.span)
            first.add(ident.text)

    def fresh(self, ident: ast.Ident, attribute: bool = False) -> bool:
        """Whether a name may be declared; IMP102 and IMP106 otherwise."""
        normal = unicodedata.normalize("NFKC", ident.text)
        first = self.normal.get(normal)
        if first is not None:
            entity = self.scope.names.get(first)
            twins = "" if first == ident.text else f" (`{first}` and `{ident.text}` are the same name to Python)"
            place = (
                f"; first as {entity.described} on line {self.report.source.position(entity.span.start)[0]}"
                if entity
                else ""
            )
            self.report.add(
                "IMP102",
                f"`{ident.text}` is declared twice{twins}{place}",
                ident.span,
                labels=((entity.span, "first declared here"),) if entity else (),
            )
            return first != ident.text  # a twin is kept, so that its uses are no errors too
        if attribute and ident.text in RESERVED:
            other = ident.text + "_" if not ident.text.startswith("_") else ident.text.strip("_") or "w"
            self.report.add(
                "IMP106",
                f"`{ident.text}` is an attribute of every torch.nn.Module, so a layer can't have a parameter of "
                f"that name",
                ident.span,
                help=f"call it `{other}`",
            )
        self.normal[normal] = ident.text
        return True

    def tensor(
        self,
        kind: str,
        ident: ast.Ident,
        declared: ast.SetExpr | None,
        init: ast.Expr | None = None,
        filled: bool = False,
        definite: bool = False,
    ) -> None:
        """A given, param or const."""
        if not self.fresh(ident, attribute=kind != "given"):
            return
        found = self.read_set(ident.text, declared, ident.span, definite)
        role = {"given": Role.GIVEN, "param": Role.PARAM, "const": Role.CONST}[kind]
        node = None if found is None else sym(ident.text, role, found.shape, ident.span)
        entity = Entity(kind, ident.text, ident.span, node, found, filled=filled)
        self.scope.names[ident.text] = entity
        if declared is not None:
            self.context.declared_sets[ident.text] = declared.span
        if init is not None and found is not None:
            entity.init = read_init(self.context, init, found)

    def unknown(self, u: ast.Unknown) -> None:
        if not self.fresh(u.name):
            return
        found = self.read_set(u.name.text, u.set, u.name.span, False)
        node: Expr | None = None if found is None else sym(u.name.text, Role.UNKNOWN, found.shape, u.name.span)
        self.scope.names[u.name.text] = Entity(
            "unknown",
            u.name.text,
            u.name.span,
            node,
            found,
            arguments=tuple(a.text for a in u.args),
            filled=u.set is None,
        )

    def read_set(self, name: str, declared: ast.SetExpr | None, span: Span, definite: bool) -> SetInfo | None:
        if declared is not None:
            return self.context.sets.read(declared)
        if definite:
            n: Dim = self.context.dims.fresh()
            return SetInfo("PSD", (), (n, n), f"PSD({n})")
        rank = self.context.guess.get(name, 2 if name[:1].isupper() else 1)
        shape = self.context.dims.fresh_shape(rank)
        text = "R" if not shape else f"R^{shape[0]}" if rank == 1 else "R^(" + ", ".join(map(str, shape)) + ")"
        return SetInfo("R", (), shape, text)
