"""What can be wrong in one place of a module: each `Mutation` is one small change of its text.

Comparisons, arithmetic, constants, conditions, return values, statements, arguments and their
order, elements of tables; and what people mix up: a field of another parameter that has it too, the
next field of the same type, the next member of an enum. Docstrings, type unions and decorators
stay.
"""

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True)
class Mutation:
    """`source[start:end]` replaced by `text`; `line` begins the function that it is in (0: none)."""

    start: int
    end: int
    text: str
    line: int = 0


@dataclass(frozen=True)
class Shape:
    """What the classes of the pure rooms consist of: fields with their types, members of enums."""

    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    enums: dict[str, list[str]] = field(default_factory=dict)

    def add(self, tree: ast.Module) -> None:
        """Take up the classes of one module."""
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            if any("Enum" in ast.unparse(base) for base in node.bases):
                self.enums[node.name] = [
                    target.id
                    for one in node.body
                    if isinstance(one, ast.Assign)
                    for target in one.targets
                    if isinstance(target, ast.Name)
                ]
            else:
                self.fields[node.name] = {
                    one.target.id: ast.unparse(one.annotation)
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }


def mutations_of(source: str, shape: Shape) -> list[Mutation]:
    """Return every mutation of a module's text, each once, in the text's order."""
    found = _Finder(source, shape)
    found.visit_all(ast.parse(source).body)
    return sorted(dict.fromkeys(found.mutations), key=lambda one: (one.start, one.end, one.text))


class _Finder:
    def __init__(self, source: str, shape: Shape) -> None:
        self.mutations: list[Mutation] = []
        self._shape = shape
        self._bytes = source.encode()
        self._lines = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._line = 0
        self._parameters: Mapping[str, str] = {}

    # -- walking ----------------------------------------------------------------------------------

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self._visit(node)

    def _visit(self, node: ast.AST) -> None:
        if _is_docstring(node) or isinstance(node, ast.Import | ast.ImportFrom | ast.Assert):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._visit_function(node)
        elif isinstance(node, ast.ClassDef):
            for each in node.keywords:
                self._replace(node, [without(node, "keywords", each)], header=True)
            self.visit_all(node.body)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return
        elif isinstance(node, ast.AnnAssign):
            self._visit_annotation(node.annotation)
            self.visit_all([node.value] if node.value else [])
        else:
            self._replace(node, list(self._changed(node)))
            if isinstance(test := getattr(node, "test", None), ast.Name | ast.Attribute | ast.Call):
                self._replace(test, [ast.UnaryOp(ast.Not(), test)])
            if not isinstance(node, ast.JoinedStr):
                self.visit_all(list(ast.iter_child_nodes(node)))

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        self.visit_all([*arguments.defaults, *filter(None, arguments.kw_defaults)])
        before = self._line, self._parameters
        self._line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        self._parameters = {
            **self._parameters,
            **{
                each.arg: ast.unparse(each.annotation) if each.annotation else ""
                for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            },
        }
        self.visit_all(node.body)
        self._line, self._parameters = before

    def _visit_annotation(self, node: ast.AST) -> None:
        """Only what is called in an annotation says more than a type: limits, and how to mend."""
        for each in ast.walk(node):
            if isinstance(each, ast.Call):
                self._visit(each)

    # -- one place --------------------------------------------------------------------------------

    def _replace(
        self, node: ast.AST, changed: list[ast.AST | str], *, header: bool = False
    ) -> None:
        if not changed or not hasattr(node, "lineno"):
            return
        start, end = self._span(node)
        for each in changed:
            text = each if isinstance(each, str) else ast.unparse(each)
            if header:  # of a class, up to its body
                end = start + self._bytes[start:].index(b":\n")
                text = text.partition(":\n")[0].rpartition("\n")[2]
            elif isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
                text = f"({text})"
            self.mutations.append(Mutation(start, end, text, self._line))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        start = self._lines[first - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._lines[last - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _changed(self, node: ast.AST) -> Iterator[ast.AST | str]:
        yield from _of_operators(node)
        yield from _of_constants(node)
        yield from _of_conditions(node)
        yield from _of_statements(node)
        yield from _of_calls(node)
        yield from _of_displays(node)
        yield from self._of_attributes(node)

    def _of_attributes(self, node: ast.AST) -> Iterator[ast.AST]:
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            return
        name = node.value.id
        if node.attr in (members := self._shape.enums.get(name, [])):
            yield _changed(node, attr=members[(members.index(node.attr) + 1) % len(members)])
        kind = self._shape.fields.get(self._parameters.get(name, ""), {})
        alike = [one for one in kind if kind[one] == kind.get(node.attr)]
        if len(alike) > 1:
            yield _changed(node, attr=alike[(alike.index(node.attr) + 1) % len(alike)])
        for other, annotation in self._parameters.items():
            if other != name and node.attr in self._shape.fields.get(annotation, {}):
                yield _changed(node, value=ast.Name(other))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changed(node: ast.AST, **changes: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def without(node: ast.AST, name: str, one: ast.AST) -> ast.AST:
    """Return `node` without `one` of the list `name`."""
    return _changed(node, **{name: [each for each in getattr(node, name) if each is not one]})


def _of_operators(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _OPERATORS[type(operator)]:
                yield _changed(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        if isinstance(node, ast.BinOp) and _is_type(node):
            return
        for other in _OPERATORS.get(type(node.op), ()):
            yield _changed(node, op=other())
        for each in node.values if isinstance(node, ast.BoolOp) else ():
            fewer = [one for one in node.values if one is not each]  # type: ignore[union-attr]
            yield fewer[0] if len(fewer) == 1 else _changed(node, values=fewer)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand


def _is_type(node: ast.BinOp) -> bool:
    """Whether it is a union of types, as `str | None`."""
    return isinstance(node.op, ast.BitOr) and (
        isinstance(node.right, ast.Constant)
        or (isinstance(node.right, ast.Name) and node.right.id in {"int", "float", "str", "list"})
        or ast.unparse(node.right).rpartition(".")[2].istitle()
    )


def _of_constants(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.JoinedStr):
        shown = [each for each in node.values if isinstance(each, ast.FormattedValue)]
        if len(node.values) > 1:
            yield without(node, "values", shown[0])
            yield without(node, "values", shown[-1])
        if words := [each for each in node.values if isinstance(each, ast.Constant)]:
            yield without(node, "values", words[-1])
    if not isinstance(node, ast.Constant):
        return
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int():
            yield ast.Constant(node.value + 1)
        case float():
            yield ast.Constant(node.value * 2 + 1)
        case str() | bytes():
            yield ast.Constant(node.value[:0] if node.value else "mutant")


def _of_conditions(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.comprehension):
        return
    elif isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
        for loop in node.generators:
            for each in loop.ifs:
                shorter = without(loop, "ifs", each)
                loops = [shorter if one is loop else one for one in node.generators]
                yield _changed(node, generators=loops)


def _of_statements(node: ast.AST) -> Iterator[ast.AST | str]:
    if isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield _changed(node, value=None)
    elif _is_needless(node):
        yield "pass"


def _is_needless(node: ast.AST) -> bool:
    """Whether the module still compiles, and no name is missing, without this statement."""
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], ast.Name | ast.Tuple)
    return isinstance(
        node, ast.Raise | ast.AugAssign | ast.Delete | ast.Break | ast.Continue | ast.Expr
    )


def _of_calls(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Call):
        return
    is_symmetric = isinstance(node.func, ast.Name) and node.func.id in {"min", "max"}
    for index in range(0 if is_symmetric else len(node.args) - 1):
        first, second = node.args[index : index + 2]
        yield _changed(node, args=[*node.args[:index], second, first, *node.args[index + 2 :]])
    for each in node.keywords:
        yield without(node, "keywords", each)
    if isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        yield _changed(node, func=ast.Name(_NAMES[node.func.id]))


def _of_displays(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Set | ast.List | ast.Tuple) and len(node.elts) > 1:
        if isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            for each in node.elts:
                yield without(node, "elts", each)
    elif isinstance(node, ast.Dict) and len(node.keys) > 1:
        for index in range(len(node.keys)):
            keys = [each for number, each in enumerate(node.keys) if number != index]
            values = [each for number, each in enumerate(node.values) if number != index]
            yield _changed(node, keys=keys, values=values)
