"""The package imports downwards only, and one explainer never leans on another."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "skgnnx"

# from the bottom to the top; units on one line are neighbours that do not know each other
LAYERS = [
    {"shared_model", "validation", "config", "taxonomy"},
    {"graphs"},
    {"blackbox"},
    {"metrics"},
    {"parallel"},
    {"explainers.base"},
    {"explainers.*"},
    {"explainers"},  # the package itself only collects the classes
    {"models", "preprocessing", "inspection", "comparison"},
    {"testing"},
    {"skgnnx"},  # the public names
]
SEES_ONLY = {"datasets": {"validation", "config", "graphs"}}
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}


def module_name(path: Path) -> str:
    parts = ["skgnnx", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def unit_of(module: str) -> str:
    """The box of the layer diagram that a module lies in."""
    parts = module.split(".")[1:]
    if not parts:
        return "skgnnx"
    if parts[0] == "explainers" and len(parts) > 1:
        return "explainers.base" if parts[1] in ("base", "backward", "learned") else "explainers.*"
    return parts[0]


def imported_modules(source: str, module: str, is_package: bool) -> set[str]:
    """Modules of this package that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                origin = ".".join([*parents, origin]) if origin else ".".join(parents)
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                found.add(full if full in MODULES else origin)
    return {name for name in found if name.split(".")[0] == "skgnnx"}


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    unit = unit_of(module)
    wrong = []
    for name in sorted(imported_modules(source, module, is_package)):
        other = unit_of(name)
        if other == unit and (unit != "explainers.*" or name == module):
            continue
        if unit in SEES_ONLY:
            allowed = other in SEES_ONLY[unit]
        elif other in SEES_ONLY:
            allowed = RANK[unit] > RANK["explainers"]
        else:
            allowed = RANK[other] < RANK[unit]
        if not allowed:
            wrong.append(f"{module} imports {name}")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    unit = unit_of(module)
    if unit not in RANK and unit not in SEES_ONLY:
        pytest.fail(f"{module} lies in no layer: put {unit!r} into LAYERS")
    path = MODULES[module]
    found = violations(path.read_text(), module, path.name == "__init__.py")
    if found:
        pytest.fail("; ".join(found))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("skgnnx.graphs.store", "from skgnnx.blackbox import BlackBox"),
        ("skgnnx.graphs.store", "import skgnnx"),
        ("skgnnx.graphs.store", "from ..explainers import base"),
        ("skgnnx.blackbox.heads", "def f():\n    from skgnnx.metrics import fidelity_plus"),
        ("skgnnx.explainers.a", "from skgnnx.explainers.b import B"),
        ("skgnnx.explainers.a", "from .b import B"),
        ("skgnnx.explainers.base", "from skgnnx.explainers import GNNExplainer"),
        ("skgnnx.explainers.backward", "from skgnnx.explainers.b import B"),
        ("skgnnx.datasets.molecules", "from skgnnx.blackbox import BlackBox"),
        ("skgnnx.metrics.fidelity", "from skgnnx import explainers"),
    ],
)
def test_upward_imports_are_seen(module, line):
    assert violations(line, module)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("skgnnx.graphs.store", "from skgnnx.graphs.index import GraphIndex"),
        ("skgnnx.graphs.store", "from .index import GraphIndex"),
        ("skgnnx.explainers.a", "from skgnnx.explainers.base import BaseExplainer\nfrom skgnnx.graphs import Masks"),
        ("skgnnx.datasets.molecules", "from skgnnx.graphs import Instances"),
        ("skgnnx.testing.checks", "from skgnnx.datasets import make_ba_shapes"),
    ],
)
def test_downward_imports_pass(module, line):
    assert not violations(line, module)
