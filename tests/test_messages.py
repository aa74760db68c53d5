"""What vlconv says is safe to print: a name or value out of a file goes through `shown`, wherever it is said.

Read off the source: whatever is put into the text of an error, a warning or a fact must be safe by its form, or stand
in KNOWN, each for a reason. A text that is made elsewhere and handed on is safe where it is made.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from vlconv.converters import errors

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "converters").rglob("*.py"))

SAFE_CALLS = {
    "shown",
    "shown_path",
    "file_name",
    "quote",
    "sized",
    "len",
    "sum",
    "round",
    "range",
    "min",
    "max",
    "prod",
}
SAFE_METHODS = {"integer", "place"}
"""Of Fields (models/shared/fields.py): a checked number, and the path of a field that we name."""

TEXTS = {
    "told_holes",
    "unsummed",
    "fault_of",
    "tiling_fault",
    "explain",
    "difference",
    "unequal",
    "copies_told",
    "no_module_for",
    "wanted",
    "check_room",
    "first_line",
    "told_cache",
    "version",
    "installed",
}
"""Functions whose text others say: what they return is judged where they are."""

NUMBERS = {"int", "float", "bool", "Shape"}

NUMBERED = {
    *("shape", "lengths", "stride", "offset", "offsets", "nbytes", "numel", "size", "st_size", "tp", "pp", "ep", "etp"),
    *(
        "layers",
        "hidden",
        "heads",
        "groups",
        "ffn",
        "experts",
        "moe_ffn",
        "vocab",
        "depth",
        "rows",
        "checked",
        "unsummed",
        "modules",
    ),
}
"""Attributes that are numbers, or at most 64 of them, whatever they belong to."""

OURS = {"strerror", "what", "hint", "usual_hint", "untied_hint", "model_type", "trainers", "title", "models", "writes"}
"""Attributes whose texts are the system's, our tables', or those of an error that was made safe already."""

KNOWN: dict[str, set[str]] = {
    # Names and sentences of our own tables, and options that were checked against them.
    "everywhere": {"layout.name", "model_type", "options.format", "output.format"},
    # Paths made safe by the caller, and names and sentences of our own tables.
    "converters/adapters/peft/opened.py": {"spec.dtype", "where", "what", "hint"},
    "converters/adapters/peft/patterns.py": {"where", "self._where"},
    "converters/adapters/peft/read.py": {"pair.module"},
    "converters/adapters/peft/stated.py": {"where", "name", "what", "rank"},
    "converters/checkpoint/lora/base_config.py": {"hint"},
    "converters/formats/seen_files.py": {"how"},
    "converters/hub/fetch.py": {"what"},
    # Variables of the environment that we name, their numbers, and how ranks are called.
    "converters/ranks/forks.py": {"self._pid"},
    "converters/ranks/joining.py": {"what", "_where(place)"},
    "converters/ranks/others.py": {"self._named(rank)", "signal.Signals(word.number).name"},
    "converters/ranks/place.py": {"names.rank", "rank", "size", "name"},
    "converters/ranks/serving.py": {"self._line.rank"},
    "converters/conversion/lora/peft_input.py": {"known", "base.reference.said"},
    "converters/conversion/lora/peft_output.py": {"side.layout.name", "config", "side.opened.warnings"},
    "converters/layouts/__init__.py": {"file_format", "known"},
    "converters/layouts/names.py": {"layout", "release.name", "what"},
    "converters/checkpoint/gated_order.py": {"seen.layout.name", "what"},
    "converters/models/__init__.py": {"kind"},  # after it was looked up in a table
    "converters/options/rules.py": {"name", "known", "match"},  # match: of digits
    "converters/output/replaceable.py": {"kind.name"},
    "converters/tensors/cast.py": {"self._dtype"},
    "converters/tensors/sharding.py": {"what", "size", "sections"},
    "converters/conversion/execute.py": {"shortage"},
    "converters/conversion/fill.py": {"specials", "warning"},
    "converters/errors.py": {"subject"},
    "converters/verification/witnesses/foreign.py": {"library", "hint"},  # hint: of options, and a module that is shown
    "converters/verification/witnesses/opening.py": {"library", "kind", "self.version", "self.dtype"},
    # Files that we name, names of ours, and numbers.
    "converters/adapters/chunk_order.py": {"self.chunks", "listed"},
    "converters/adapters/derived.py": {"listed"},
    "converters/adapters/merged.py": {"out.dtype"},
    "converters/adapters/names.py": {"what", "hint", "listed"},  # listed: of our own names of parts
    "converters/adapters/read.py": {"opened.format", "self.base.layout.name", "base"},
    "converters/adapters/stated.py": {
        *("self.rank.where", "stated", "divided", "where", "name", "what", "listed", "said.where", "pattern"),
    },
    "converters/checkpoint/lora/adapter_side.py": {"known"},
    "converters/checkpoint/lora/describe_adapter.py": {
        "adapter.said",
        "base",
        "where",
        "there",
        "apart.warnings",
    },
    "converters/conversion/mcore_source.py": {"line"},
    "converters/conversion/to_hf/merging.py": {"part.warnings", "given"},  # given: names of options
    # Dtypes: of the weights, checked against the few that are converted, or read from a table.
    "converters/checkpoint/hf_side.py": {"spec.dtype"},
    "converters/checkpoint/fp8/files.py": {"scale.dtype", "specs[name].dtype", "want", "said.title"},
    "converters/checkpoint/fp8/form.py": {"scales"},
    "converters/tensors/fp8/dequantised.py": {"dtype"},
    "converters/config/quantization.py": {"what", "name"},  # of our own tables, or shown
    "converters/formats/dcp/read.py": {"found.dtype", "spec.dtype", "lengths", "missing", "offset"},
    "converters/formats/dcp/unfold.py": {"shape", "dtype"},
    "converters/formats/keys.py": {"tensor.spec.dtype", "dtype"},
    "converters/formats/pieces.py": {"dtype", "first.dtype", "order", "missing"},
    "converters/formats/sums/replicas.py": {
        "what",
        "how",
        "count",
        "first.dtype",
        "second.dtype",
        "ours.dtype",
        "theirs.dtype",
    },
    "converters/formats/zips/read.py": {"ref.dtype"},
    "converters/tensors/mapped.py": {"d", "side", "lines"},
    # Places of values: fields of config.json and args that we name, files of ours to name.
    "converters/config/facts.py": {"fact.place", "path", "name"},
    "converters/config/from_facts.py": {"fact.place", "where", "missing", "self.sources", "source(name)"},
    "converters/config/hf_config.py": {"path", "place"},
    "converters/config/run_config.py": {"place"},
    "converters/formats/json_file.py": {"where"},
    "converters/formats/directory/yaml_file.py": {"self._where"},
    "converters/models/shared/fields.py": {"path", "v", "n", "tie.said", "tie.tied"},
    "converters/models/shared/hf_dialects.py": {"form", "shapes"},
    # What was made safe where it was made, and is told here.
    "converters/checkpoint/absent/carried.py": {"shape"},
    "converters/checkpoint/consistency.py": {
        *("where", "line", "reference.said", "found", "expected"),
        *("model.vision_prefix", "words", "way_out"),  # of our own tables
    },
    "converters/checkpoint/absent/mtp.py": {"where", "whose", "asked"},
    "converters/config/reference_weights.py": {"first_line(error)"},
    "converters/checkpoint/shape_errors.py": {"where", "want"},
    "converters/checkpoint/describe_model.py": {
        *("dialect.experts", "dialect.hf_names", "tie.said"),  # ours
        "text",  # a model_type of MODELS, and numbers
    },
    "converters/conversion/outcome.py": {"report.last"},  # made of what is shown
    # Of --like: made of what is shown, and sentences of ours.
    "converters/verification/like/config_fields.py": {"load"},
    "converters/verification/like/fp8.py": {"what", "are(codes)", "listed(unfit)"},
    "converters/verification/like/held.py": {"what", "load"},
    "converters/verification/like/names.py": {"what", "words", "are(names)", "dtype", "listed(names)"},
    "converters/verification/like/promised.py": {"words", "what", "how", "place"},
    "converters/verification/like/side.py": {"name"},
    # Names of ours, and sentences.
    "converters/repairs/repair.py": {"lines"},
    "converters/repairs/undone.py": {"nearest(name, FAULTS)", "one.name", "one.rivals", "one.fault.name"},
    # what a child does, dtypes, counts and versions; why_not of megatron/model.py shows what it names
    "converters/verification/forward/child.py": {"does"},
    "converters/verification/forward/describe.py": {"forward.library", "fit.dtype", "why", "name"},
    "converters/verification/forward/ready.py": {"why"},
    "converters/verification/forward/sizes.py": {"said", "most"},
    "converters/verification/parts.py": {"_words(part, counts)"},  # our names of parts, and numbers
    "converters/checkpoint/describe.py": {
        *("scales", "_as_what(carried)"),
        *(
            "opened.form",
            "side.seen.seen_by",
            "found.said",
            "known.overridden",
            "known.unproven",
            "side.stale",
            "tie.said",
            "told",
        ),
        *(
            "stated",
            "whose",
            "place",
            "fields",
            "kind",
            "dialect.experts",
            "dialect.hf_names",
            "listed",
            "text",
            "dtype",
            "reference.said",
            "side.reference_dtypes.why_not",
        ),
    },
    "converters/conversion/convert.py": {"known", "main"},
    "converters/options/asked.py": {"command", "_near(name, known)"},  # of our own functions, and their options
    # our own options
    "converters/options/__init__.py": {"self.mtp", "get_args(MtpAsIs)", "clash", "without", "given"},
    "converters/tensors/offset.py": {"target"},
    "converters/conversion/summary.py": {"beside.missing", "why", "specials", "size", "name"},
    "converters/formats/dcp/backend.py": {"wrong", "known"},
    "converters/formats/dcp/metadata.py": {"where"},
    "converters/formats/dcp/places.py": {"whose", "int(start[at + 1])"},
    "converters/formats/dcp/integrity.py": {"sum_.hexdigest()", "stated"},  # found to be hexadecimal digits
    "converters/formats/legacy/held/agreement.py": {"what.format(listed)", "twice", "number"},
    "converters/formats/legacy/held/ends.py": {"where"},
    "converters/formats/legacy/held/copies.py": {"folders"},  # their names are of a rank's folder, or they are refused
    "converters/formats/legacy/whole.py": {"first.folder", "shard.folder", "copy.folder", "how"},
    "converters/formats/holes.py": {"told(found)"},  # which Holes makes safe
    "converters/manifest/record.py": {"where"},
    "converters/output/faults.py": {"hint", "left"},
    "converters/verification/sources.py": {"w", "name"},
    "converters/layouts/shared/divisions.py": {"what", "wrong"},  # our own words for fields, and their numbers
    "converters/live/chunk.py": {"_called(rank)", "nearest(short, chunk)", "missing"},
    "converters/live/convert.py": {"listed"},  # of names that were shown
    "converters/live/exchange.py": {"shapes"},
    "converters/live/model.py": {"chosen.name", "known", "other"},
    "converters/live/names.py": {"model.layout.name", "nearest(short, names)"},
    "converters/live/table.py": {"found.expert"},
    # Numbers.
    "converters/output/writing/read_back.py": {"size"},
    "converters/formats/legacy/layers.py": {"known", "numbers"},
    "converters/formats/chunks.py": {"done"},
    "converters/formats/legacy/ranks.py": {"sizes", "stated", "topology"},
    "converters/formats/legacy/read.py": {"iteration"},
    "converters/parallel/model_chunk.py": {"experts"},
    "converters/parallel/rank.py": {"period", "name", "found", "size"},
    "converters/output/save_directory.py": {"step.part", "asked"},
    "converters/output/directory.py": {"found"},
    "converters/output/writing/open_file.py": {"at"},
    "converters/tensors/tiling.py": {"clash", "offsets", "lengths"},
    "converters/tensors/vocabulary.py": {"own", "own_rows"},
    "converters/verification/summary.py": {"lines", "found.tensors"},
}
"""Expressions that are safe for another reason, by file."""


class Scope:
    """A function: what its names are bound to."""

    def __init__(self, node: ast.AST, outer: Scope | None, where: str) -> None:
        self.outer, self.where = outer, where
        self.bound: dict[str, list[ast.expr | None]] = {}
        arguments = getattr(node, "args", None)
        if isinstance(arguments, ast.arguments):
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                kind = ast.unparse(argument.annotation) if argument.annotation else ""
                numeric = set(kind.replace(" ", "").split("|")) <= {*NUMBERS, "None"}
                self.bound[argument.arg] = [ast.Constant(0) if numeric else None]
        for inner in own(node):
            self._bind(inner)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._to(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            self._to(node.target, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            self._to(node.target, ast.Starred(node.iter))  # one of what is in it
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._to(node.optional_vars, None)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            self.bound.setdefault(node.name, []).append(None)

    def _to(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self.bound.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple | ast.List):
            parts = [*value.elts] if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
            for place, part in enumerate(target.elts):
                found = parts[place] if parts else _item(value, place)
                self._to(part.value if isinstance(part, ast.Starred) else part, found)

    def values(self, name: str) -> list[ast.expr | None] | None:
        """What a name is bound to; None where it is bound outside of all functions."""
        if name in self.bound:
            return self.bound[name]
        return self.outer.values(name) if self.outer else None


def _item(value: ast.expr | None, place: int) -> ast.expr | None:
    """One of several that are bound at once, where its form shows."""
    if isinstance(value, ast.Starred):
        over = value.value
        if isinstance(over, ast.Call) and ast.unparse(over.func) == "enumerate":
            return ast.Constant(0) if place == 0 else ast.Starred(over.args[0])
        if isinstance(over, ast.Tuple | ast.List) and all(isinstance(e, ast.Tuple) for e in over.elts):
            return ast.Starred(ast.Tuple([e.elts[place] for e in over.elts if isinstance(e, ast.Tuple)]))
    return None


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, but not in functions inside it; comprehensions and lambdas count as its own."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
            yield from own(child)


def scopes(
    tree: ast.AST, where: str, outer: Scope | None = None
) -> Iterator[tuple[Scope, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            scope = Scope(child, outer, where)
            yield scope, child
            yield from scopes(child, where, scope)
        else:
            yield from scopes(child, where, outer)


ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def messages(function: ast.AST) -> Iterator[ast.expr]:
    """The texts that are said: arguments of errors, of `fact`, of what is appended to warnings."""
    if getattr(function, "name", "") in TEXTS:
        yield from returns(function)
    for node in own(function):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rpartition(".")[2] in ERRORS or name in ("naming", "type(fault)"):
                yield from node.args
            elif name == "finding" or name.endswith(".wrong"):
                yield from node.args[2:4] if name == "finding" else node.args[1:3]
            elif name.endswith(".fact") and len(node.args) > 1:
                yield node.args[1]
            elif name.endswith(("warnings.append", "warnings.extend")):
                yield from node.args
        elif isinstance(node, ast.AugAssign) and ast.unparse(node.target).endswith("warnings"):
            yield node.value


class Judge:
    """Whether an expression is safe to print, by its form.

    Args:
        scope: where it stands.
        functions: those of the module, by name: what they return is judged where they are called.
    """

    def __init__(self, scope: Scope, functions: Mapping[str, tuple[Scope, list[ast.expr]]]) -> None:
        self.scope, self.functions = scope, functions
        self._asked: set[str] = set()

    def unsafe(self, node: ast.expr | None) -> Iterator[str]:
        """The parts of a text that are not."""
        if node is None:
            yield "?"
        elif isinstance(node, ast.Constant) or ast.unparse(node) in KNOWN.get(self.scope.where, set()) | KNOWN.get(
            "everywhere", set()
        ):
            return
        elif isinstance(node, ast.JoinedStr):
            for part in node.values:
                yield from self.unsafe(part)
        elif isinstance(node, ast.FormattedValue):
            if not self._numeric(node):
                yield from self.unsafe(node.value)
        elif isinstance(node, ast.BinOp):
            yield from self._arithmetic(node)
        elif isinstance(node, ast.IfExp):
            yield from self.unsafe(node.body)
            yield from self.unsafe(node.orelse)
        elif isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from self.unsafe(value)
        elif isinstance(node, ast.Compare):
            return
        elif isinstance(node, ast.UnaryOp):
            yield from self.unsafe(node.operand)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            for element in node.elts:
                yield from self.unsafe(element)
        elif isinstance(node, ast.Dict):
            for value in (*node.keys, *node.values):
                yield from self.unsafe(value)
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            yield from self.unsafe(node.elt)
        elif isinstance(node, ast.DictComp):
            yield from self.unsafe(node.key)
            yield from self.unsafe(node.value)
        elif isinstance(node, ast.Starred | ast.NamedExpr):
            yield from self.unsafe(node.value)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Subscript):
            yield from self.unsafe(node.value)
        elif isinstance(node, ast.Name):
            yield from self._name(node)
        elif isinstance(node, ast.Attribute):
            safe = node.attr.isupper() or node.attr in NUMBERED | OURS or ast.unparse(node).endswith(").__name__")
            if not safe:
                yield ast.unparse(node)
        else:
            yield ast.unparse(node)

    def _numeric(self, node: ast.FormattedValue) -> bool:
        parts = node.format_spec.values if isinstance(node.format_spec, ast.JoinedStr) else []
        spec = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
        return spec.endswith((",", "d", "f", "g", "x", "e"))  # a text cannot be formatted so

    def _arithmetic(self, node: ast.BinOp) -> Iterator[str]:
        if isinstance(node.op, ast.Sub | ast.FloorDiv | ast.Pow):
            return  # of numbers
        yield from self.unsafe(node.left)
        if not isinstance(node.op, ast.Mult):
            yield from self.unsafe(node.right)

    def _call(self, node: ast.Call) -> Iterator[str]:
        name = ast.unparse(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name.rpartition(".")[2] in SAFE_CALLS | SAFE_METHODS | TEXTS:
            return
        if method in ("join", "replace", "rstrip", "removesuffix", "removeprefix", "lower", "items", "values", "keys"):
            assert isinstance(node.func, ast.Attribute)
            yield from self.unsafe(node.func.value)
            for argument in node.args:
                yield from self.unsafe(argument)
        elif (method == "get" and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).isupper()) or (
            name == "map" and ast.unparse(node.args[0]) in SAFE_CALLS
        ):
            return
        elif name in ("sorted", "list", "tuple", "set", "dict", "str", "next", "iter", "reversed", "map", "zip"):
            for argument in node.args[1:] if name == "map" else node.args:
                yield from self.unsafe(argument)
        elif name in self.functions and name not in self._asked:
            self._asked.add(name)
            scope, returned = self.functions[name]
            judge = Judge(scope, {n: f for n, f in self.functions.items() if n != name})
            if any(True for value in returned for _ in judge.unsafe(value)):
                yield ast.unparse(node)
        else:
            yield ast.unparse(node)

    def _name(self, node: ast.Name) -> Iterator[str]:
        if node.id.lstrip("_").isupper() or node.id in self._asked:
            return
        values = self.scope.values(node.id)
        if values is None or None in values:
            yield node.id
            return
        self._asked.add(node.id)
        for value in values:
            if list(self.unsafe(value)):
                yield node.id
                return


def found(path: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and expression of every part that is not safe."""
    where = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text() if text is None else text)
    all_scopes = list(scopes(tree, where))
    functions = {function.name: (scope, returns(function)) for scope, function in all_scopes}
    for scope, function in all_scopes:
        for message in messages(function):
            yield from ((message.lineno, part) for part in Judge(scope, functions).unsafe(message))


def returns(function: ast.AST) -> list[ast.expr]:
    return [node.value for node in own(function) if isinstance(node, ast.Return) and node.value is not None]


def lines(paths: Iterable[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}: {part}" for path in paths for line, part in found(path)]


def test_what_is_said_is_safe_to_print() -> None:
    wrong = lines(SOURCES)
    assert not wrong, f"{len(wrong)}: put them through shown, or name them in KNOWN:\n" + "\n".join(wrong)


UNSAFE = [
    'raise CorruptError(f"{path} is bad")',
    'raise CorruptError(f"{shown(path)} is bad", f"see {hint}")',
    'raise errors.TargetError("no " + name)',
    'raise CorruptError("no " + ", ".join(names))',
    'raise CorruptError("no " + ", ".join(str(n) for n in names))',
    'said = f"{name}" if name else ""; raise CorruptError(said)',
    'for name in names: raise CorruptError(f"{name}")',
    'a, b = names; raise CorruptError(f"{b}")',
    'raise CorruptError(f"{name!r}")',
    'raise CorruptError(f"{path / name} is bad")',
    'raise HubFault(f"{name} is bad")',
    'raise RankError(f"{name} is bad")',
    'raise ChangedError(f"{path} changed")',
    'raise CorruptError(f"{name:>10}")',
    'raise CorruptError(f"{spec.name} {len(names)}")',
    "raise CorruptError(_unsafe(name))",
    'report.fact("source", f"{path}")',
    'warnings.append(f"{path}")',
    'report.warnings += [f"{n} is there" for n in names]',
    'with naming(f"{path}: x"): pass',
    'return TargetError(f"{path}")',
]
SAFE = [
    'raise CorruptError(f"{shown(path)}, {shown_path(path)}: {len(names)} of {sized(n)}")',
    'raise CorruptError(f"{LIMIT:,} {n:,} {x:.1f}", HINTS.get(n, ""))',
    'raise CorruptError(", ".join(map(shown, names)))',
    'raise CorruptError(", ".join(shown(n) for n in names) + f" and {len(names) - 3} more")',
    'said = [shown(n) for n in names]; more = "…" * (len(said) > 3); raise CorruptError(f"{said[0]}{more}")',
    'raise CorruptError(f"{count} are there")',
    "raise CorruptError(_safe(name))",
    'raise CorruptError("a" if name else "b") from name',
    'report.fact("source", f"{shown(path)}", path=str(path))',
    'raise CorruptError(f"{type(error).__name__}: {fault.strerror}")',
]


def judged(statement: str) -> list[str]:
    body = "\n".join(f"    {line}" for line in statement.split("; "))
    module = (
        'def _safe(name: str) -> str:\n    return f"<{shown(name)}>"\n'
        'def _unsafe(name: str) -> str:\n    return f"<{name}>"\n'
        f"def function(path, name, names, hint, spec, report, fault, error, count: int, n: int):\n{body}\n"
    )
    return [part for _, part in found(ROOT / "converters" / "x.py", module)]


@pytest.mark.parametrize("statement", UNSAFE)
def test_the_judge_sees_what_is_not(statement: str) -> None:
    assert judged(statement)


@pytest.mark.parametrize("statement", SAFE)
def test_the_judge_sees_what_is(statement: str) -> None:
    assert not judged(statement)


def test_there_is_much_to_judge() -> None:
    said = [m for path in SOURCES for _, f in scopes(ast.parse(path.read_text()), "") for m in messages(f)]
    assert len(said) > 300
