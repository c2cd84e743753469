"""Every command in the documents exists, with its options, configuration keys and files; those of
the README are run."""

import re
import runpy
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.main import get_command

from realdamage.commands import app, cli  # noqa: F401 (it registers the commands)
from realdamage.configuration import compose
from realdamage.service.settings import Settings, option_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md", "notebooks/README.md")
PAGES += ("src/realdamage/service/README.md", "src/realdamage/evaluation/README.md")
COMMANDS = get_command(app.commands).commands
SERVE = {option_of(name) for name in Settings.model_fields} | {"--hash-key"}


def calls(page):
    """The words of each command in the page's blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [re.split(r"[|;]|&&|>>?", " ".join(shlex.split(line, comments=True))) for line in lines]
    return [words for part in parts for one in part if (words := one.split())]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page):
    for program, *words in calls(page):
        options = {word for word in words if word.startswith("--")}
        if program == "realdamage":
            known = {name for one in COMMANDS[words[0]].params for name in one.opts}
            assert options <= (SERVE if words[0] == "serve" else known), words
        elif program.startswith("realdamage-"):
            keys = [word for word in words if not word.startswith("-")]
            overrides = [re.sub(r"=([\d.]+),.*", r"=\1", key) for key in keys]
            compose(program.partition("-")[2], overrides)
        elif program == "make":
            text = (ROOT / "Makefile").read_text("utf-8")
            targets = [word for word in words if "=" not in word]
            assert [name for name in targets if f"\n{name}:" not in text] == []
        elif words and words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), words


TOOL = runpy.run_path(str(ROOT / "tests/trials/first_hour.py"))
README = (ROOT / "README.md").read_text("utf-8")
# What keeps a command short; it ends otherwise as typed. Each is a key or an option of the command.
SHORTER = {
    # One codec only: a few steps are enough for scores that rise with the label.
    "realdamage-synthesize": "recipe.workers=1 recipe.generators.house.weights=null "
    "recipe.generators.house_nearest.weights=null recipe.generators.house_bilinear.weights=null "
    "recipe.generators.house_transposed.weights=null "
    "recipe.source.crop=160 'recipe.shares={damaged: {ai_whole: 1.0}, default: {ai_whole: 1.0}}'",
    "realdamage-train": "trainer.max_epochs=8 trainer.check_val_every_n_epoch=8 data.batch_units=2 "
    "data.degradations.probability=0 callbacks.ema=null callbacks.pictures=null threads=1",
    "realdamage-export": "threads=1",
    "realdamage-evaluate": "workers=1 threads=1",
    "realdamage calibrate": "--threads 1 --fpr 0.2 --miss 0.2",
    "realdamage serve": "--port 0",
}
INSTALL = "pip install"


@pytest.mark.slow
def test_the_readme_does_what_it_shows(tmp_path):
    """Every block, in order, in one folder; the installs are those of this environment."""
    shutil.copytree(ROOT / "data/sample", tmp_path / "data/sample")
    TOOL["photos_of_a_new_user"](tmp_path, 8)
    environment = TOOL["own_environment"](Path(sys.executable).parent)
    environment |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    typed = []
    for block in TOOL["blocks"](README):
        for command in TOOL["commands"](block):
            if command.startswith(INSTALL):
                continue
            more = next((SHORTER[name] for name in SHORTER if command.startswith(name)), "")
            done = TOOL["run"](f"{command} {more}".rstrip(), tmp_path, environment)
            assert done.code == 0, f"{done.command}\n{done.out}{done.err}"
            assert "Traceback" not in done.err, done.err
            if block.shown:
                assert done.out == block.shown
            typed.append(command.split()[0])
    assert Counter(typed) == {
        "python": 1,
        "realdamage": 6,
        **dict.fromkeys(
            map("realdamage-{}".format, ("synthesize", "train", "export", "evaluate")), 1
        ),
    }
    report = tmp_path / "out/mine/evaluation/report.html"
    assert report.stat().st_size > 10_000
    assert list((tmp_path / "evidence").glob("*.html"))
