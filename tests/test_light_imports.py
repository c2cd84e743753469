"""What each room may import: a service loads no training library, and no room imports a later
one."""

import ast
import json
import os
import pkgutil
import subprocess
import sys
from functools import cache
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
ON_RAY = {f"realdamage.scale.{name}" for name in ("cluster", "ray_runner", "serve")}
CODEC_ENGINES = {"realdamage.synthesis.autoencoders"}  # they run networks

# Imports the modules of one stage after the other, and notes for each stage the first module that
# brings in something that it must not.
WATCH = """
import importlib, json, sys
found = []
for modules, forbidden in json.loads(sys.argv[1]):
    found.append({})
    for module in modules:
        importlib.import_module(module)
        for name in forbidden:
            if name in sys.modules:
                found[-1].setdefault(name, module)
print(json.dumps(found))
"""

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


def modules_of(*rooms):
    names = []
    for room in rooms:
        names += [f"realdamage.{room}"]
        names += [f"realdamage.{room}.{m.name}" for m in pkgutil.iter_modules([PACKAGE / room])]
    return [name for name in names if name not in ON_RAY | CODEC_ENGINES]


def test_what_is_light_imports_nothing_heavy():
    """In one process: each stage may import more than the one before."""
    stages = [
        (["realdamage"], TRAINING | ANALYSIS | {"numpy", "PIL", "onnxruntime"}),
        # The base install, and photos at scale without Ray. numpy shows that the watch sees.
        (modules_of("core", "scale"), TRAINING | ANALYSIS | {"ray", "numpy"}),
        (["realdamage.commands.cli"], TRAINING | ANALYSIS | {"ray"}),
        # imagehash, which claims use, brings scipy.
        (
            modules_of("service", "provenance", "photo_pairs", "claims"),
            TRAINING | ANALYSIS - {"scipy"},
        ),
        (modules_of("data", "evaluation", "rendering", "synthesis"), TRAINING),
    ]
    assert all(len(modules) > 15 for modules, _ in stages if len(modules) > 1)
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    listed = json.dumps([(modules, sorted(forbidden)) for modules, forbidden in stages])
    done = subprocess.run(
        [sys.executable, "-c", WATCH, listed],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[1].pop("numpy").startswith("realdamage.core.")
    assert found == [{}] * len(stages)


@cache
def tree(file):
    return ast.parse(file.read_text("utf-8"))


def against_the_direction(room, source):
    """The modules of ours that `source`, a file of `room`, imports although it may not; also inside
    functions."""
    imported = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            imported += ["realdamage.relative"]  # would hide the room; none is used
        elif isinstance(node, ast.ImportFrom) and node.module == "realdamage":
            imported += [f"realdamage.{name.name}" for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [str(node.module)]
    closed = set(MAY_IMPORT) - MAY_IMPORT[room] - {room}
    ours = [name for name in imported if name.startswith("realdamage.")]
    return [name for name in ours if name.split(".")[1] in {*closed, "relative"}]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_in_one_direction(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    found = {file.name: against_the_direction(room, tree(file)) for file in files}
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_the_direction_is_seen_and_every_room_has_its_place():
    later = ast.parse("def f():\n    from realdamage.evaluation.left_out import MODEL\n")
    assert against_the_direction("training", later) == ["realdamage.evaluation.left_out"]
    both = ast.parse("from realdamage import evaluation, schema")
    assert against_the_direction("service", both) == ["realdamage.evaluation"]
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_the_rooms_of_a_service_have_no_circular_imports():
    graph = {}
    for file in [path for room in ORDER[:5] for path in (PACKAGE / room).glob("*.py")]:
        name = f"realdamage.{file.parent.name}.{file.stem}".removesuffix(".__init__")
        found = tree(file).body
        graph[name] = {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    TopologicalSorter(graph).prepare()  # raises CycleError
