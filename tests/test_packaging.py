"""What is installed is what the repository says: the wheel's files, the commands, bounds, pins and
the Makefile."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import realdamage

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train", "evaluate", "export", "synthesize", "folds")


@pytest.fixture(scope="session")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built with the backend alone: no network, nothing written into the source."""
    output = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = output.iterdir()
    return zipfile.ZipFile(built)


@pytest.fixture(scope="session")
def metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def files_below(folder):
    found = (
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return {path.relative_to(folder).as_posix() for path in found}


def test_the_wheel_is_the_package_and_its_configs(wheel):
    inside = {
        name.removeprefix("realdamage/")
        for name in wheel.namelist()
        if name.startswith("realdamage/")
    }
    configs = {f"configs/{name}" for name in files_below(ROOT / "configs")}
    assert inside == files_below(ROOT / "src" / "realdamage") | configs
    assert {
        "claims/statements.html.j2",
        "py.typed",
        "configs/experiment/quickstart.yaml",
        "synthesis/house_codec.safetensors",
    } <= inside
    others = {name.partition("/")[0] for name in wheel.namelist()} - {"realdamage"}
    assert others == {f"realdamage-{realdamage.__version__}.dist-info"}


def test_one_version_everywhere(project, metadata):
    version = project["project"]["version"]
    assert metadata["Version"] == version
    assert realdamage.__version__ == version, (
        "installed anew? remove .venv/installed-*, then make test"
    )
    assert re.search(
        rf"^## {re.escape(version)}\b",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )


def test_the_base_install_is_four_packages(metadata):
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    base = {"numpy", "pillow", "onnxruntime", "typer"}
    assert {r.name for r in requirements if r.marker is None} == base


def test_every_command_can_be_loaded_and_is_installed(project):
    scripts = project["project"]["scripts"]
    installed = {
        e.name: e
        for e in importlib.metadata.entry_points(group="console_scripts")
        if e.name in scripts
    }
    assert {name: entry.value for name, entry in installed.items()} == scripts, (
        "installed anew? see test_one_version"
    )
    assert set(scripts) == {"realdamage", *(f"realdamage-{name}" for name in COMMANDS)}
    assert all(callable(entry.load()) for entry in installed.values())


def test_a_command_without_its_extra_names_it(tmp_path):
    """In an interpreter that cannot import hydra, away from the repository."""
    code = "import sys; sys.modules['hydra'] = None; from realdamage.commands import entry_points; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code} entry_points.train()"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert 'realdamage-train needs the extra "train"' in done.stderr
    assert done.stderr.count("\n") == 1


def direct_dependencies(project):
    """The requirements of the base install, of every extra and of every group; not those of one
    extra on another."""
    lists = [
        project["project"]["dependencies"],
        *project["dependency-groups"].values(),
        *project["project"]["optional-dependencies"].values(),
    ]
    return [text for listed in lists for text in listed if not text.startswith("realdamage[")]


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {r.name.lower(): Version(next(iter(r.specifier)).version) for r in requirements}


def test_every_direct_dependency_is_pinned_within_its_bounds(project):
    pinned = pins()
    for text in direct_dependencies(project):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name]), text
