"""The rules by which the package's files may import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dream_jax"
STAGES = ("latent_space", "sampling", "decoding", "detector", "evaluation")
# What orchestration is made of: no file below it imports one of these.
ABOVE = (
    *("cli", "loaded_run", "pipeline", "checks", "rows", "tuning", "ablation"),
    *("generator_training", "scoring_files", "detector_folder", "openood_files"),
)


def imports() -> dict[str, set[str]]:
    """Module → the modules of the package that it imports, also inside functions."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names: set[str] = set()
        for node in executed(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
            if isinstance(node, ast.Import):
                names |= {name.name for name in node.names}
        found[module] = {name for name in names if name in files and name != module}
    return found


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for imports that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield child
            yield from executed(child)


def folder(module: str) -> str:
    """The first part of a module's name within the package."""
    return [*module.split("."), ""][1]


def test_a_stage_imports_no_other_stage():
    for module, used in imports().items():
        own = folder(module)
        if own in STAGES:
            others = {name for name in used if folder(name) in STAGES and folder(name) != own}
            assert not others, module


def test_nothing_imports_upwards():
    for module, used in imports().items():
        if folder(module) not in (*ABOVE, ""):
            assert not {name for name in used if folder(name) in ABOVE}, module


def test_there_is_no_circle():
    graph = imports()
    for start in graph:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        assert start not in seen, start


def test_functions_and_classes_are_short():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - len(text.splitlines())
                most = 200 if isinstance(node, ast.ClassDef) else 60
                assert lines <= most, f"{path}: {node.name} has {lines} lines"


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
