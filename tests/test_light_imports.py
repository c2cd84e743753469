"""What each room may import, checked in an interpreter of its own: a service loads no training
library."""

from __future__ import annotations

import ast
import json
import os
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import realdamage

PACKAGE = Path(realdamage.__file__).parent
TRAINING = {
    *("torch", "torchvision", "timm", "lightning", "hydra", "omegaconf", "diffusers"),
    *("transformers", "peft"),
}
ANALYSIS = {"pandas", "sklearn", "scipy", "matplotlib", "onnx"}
CODEC_ENGINES = {"realdamage.synthesis.autoencoders"}  # they run networks

# Imports one module after the other and notes the first that brings in something heavy.
WATCH = """
import importlib, json, sys
modules, forbidden = json.loads(sys.argv[1])
found = {}
for module in modules:
    importlib.import_module(module)
    for name in forbidden:
        if name in sys.modules:
            found.setdefault(name, module)
print(json.dumps(found))
"""


def modules_of(room: str) -> list[str]:
    names = [
        f"realdamage.{room}.{module.name}" for module in pkgutil.iter_modules([str(PACKAGE / room)])
    ]
    return [f"realdamage.{room}", *(name for name in names if name not in CODEC_ENGINES)]


def heavy_imports(modules: list[str], forbidden: set[str]) -> dict[str, str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps([modules, sorted(forbidden)])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_rooms_without_torch() -> None:
    """In one process, as they import much of the same; what is found is named with its module."""
    rooms = [modules_of(room) for room in ("data", "evaluation", "rendering", "synthesis")]
    assert all(len(modules) > 5 for modules in rooms)
    assert heavy_imports([module for modules in rooms for module in modules], TRAINING) == {}


def test_the_wrapper_and_the_command_line_need_the_base_install_only() -> None:
    modules = ["realdamage", *modules_of("core"), "realdamage.commands.cli"]
    assert len(modules) > 10
    assert heavy_imports(modules, TRAINING | ANALYSIS) == {}


def test_the_service_and_what_claims_import_need_no_training_and_no_analysis() -> None:
    rooms = ["service", "provenance", "photo_pairs", "claims"]
    modules = [module for room in rooms for module in modules_of(room)]
    assert len(modules) > 20
    # imagehash, which claims use, brings scipy.
    assert heavy_imports(modules, TRAINING | ANALYSIS - {"scipy"}) == {}


def test_running_at_scale_needs_no_training_no_analysis_and_no_ray() -> None:
    modules = ["realdamage", *modules_of("core"), *modules_of("scale"), "realdamage.commands.cli"]
    on_ray = {f"realdamage.scale.{name}" for name in ("cluster", "ray_runner", "serve")}
    light = [name for name in modules if name not in on_ray]
    assert heavy_imports(light, TRAINING | ANALYSIS | {"ray"}) == {}


# A room may import those before it; the service and scale only some. errors.py and files.py are
# free.
ORDER = (
    *("phrases", "core", "provenance", "photo_pairs", "claims", "scale", "data", "synthesis"),
    *("training", "evaluation", "rendering", "exporting", "service", "commands"),
)
MAY_IMPORT = {room: set(ORDER[:number]) for number, room in enumerate(ORDER)}
MAY_IMPORT["service"] = set(ORDER[:5])
MAY_IMPORT["scale"] = {"phrases", "core"}
MAY_IMPORT["data"] = {"phrases", "core"}


def against_the_direction(room: str, source: str) -> list[str]:
    """The modules of ours that `source`, a file of `room`, imports although it may not; also inside
    functions."""
    imported: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            imported += (
                [f"realdamage.{name.name}" for name in node.names]
                if module == "realdamage"
                else [module]
            )
            imported += (
                ["realdamage.relative"] if node.level else []
            )  # would hide the room; none is used
    ours = [
        name
        for name in imported
        if name.startswith("realdamage.") and not name.endswith("__version__")
    ]
    closed = {name.split(".")[1] for name in ours} & set(MAY_IMPORT) - MAY_IMPORT[room] - {room}
    return [name for name in ours if name.split(".")[1] in closed]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_in_one_direction(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    found = {
        str(file.relative_to(PACKAGE)): against_the_direction(room, file.read_text("utf-8"))
        for file in files
    }
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_the_direction_is_seen() -> None:
    later = "def f():\n    from realdamage.evaluation.left_out import MODEL\n"
    assert against_the_direction("training", later) == ["realdamage.evaluation.left_out"]
    assert against_the_direction("service", "from realdamage import evaluation, schema") == [
        "realdamage.evaluation"
    ]


def test_importing_the_package_is_free() -> None:
    assert (
        heavy_imports(["realdamage"], TRAINING | ANALYSIS | {"numpy", "PIL", "onnxruntime"}) == {}
    )


def test_the_watch_sees_what_is_imported() -> None:
    assert heavy_imports(["realdamage", "realdamage.core.tiles"], {"numpy"}) == {
        "numpy": "realdamage.core.tiles"
    }


def test_the_rooms_of_a_service_have_no_circular_imports() -> None:
    rooms = ("phrases", "core", "provenance", "photo_pairs", "claims")
    graph: dict[str, set[str]] = {}
    for file in [path for room in rooms for path in (PACKAGE / room).glob("*.py")]:
        name = f"realdamage.{file.parent.name}.{file.stem}".removesuffix(".__init__")
        found = ast.parse(file.read_text("utf-8")).body
        graph[name] = {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    TopologicalSorter(graph).prepare()  # raises CycleError
