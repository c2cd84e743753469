"""Every command in the documents exists, with its options, configuration keys and files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from realdamage.commands import app, cli  # noqa: F401 (it registers the commands)
from realdamage.configuration import compose
from realdamage.service.settings import Settings, option_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md", "notebooks/README.md")
PAGES += ("src/realdamage/service/README.md", "src/realdamage/evaluation/README.md")COMMANDS = get_command(app.commands).commands  # type: ignore[attr-defined]
SERVE = {option_of(name) for name in Settings.model_fields} | {"--hash-key"}


def calls(page: str) -> list[list[str]]:
    """The words of each command in the page's blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [re.split(r"[|;]|&&|>>?", " ".join(shlex.split(line, comments=True))) for line in lines]
    return [words for part in parts for one in part if (words := one.split())]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page: str) -> None:
    for program, *words in calls(page):
        options = {word for word in words if word.startswith("--")}
        if program == "realdamage":
            known = {name for one in COMMANDS[words[0]].params for name in one.opts}
            assert options <= (SERVE if words[0] == "serve" else known), words
        elif program.startswith("realdamage-"):
            keys = [word for word in words if not word.startswith("-")]
            compose(program.partition("-")[2], [re.sub(r"=([\d.]+),.*", r"=\1", key) for key in keys])
        elif program == "make":
            text, targets = (ROOT / "Makefile").read_text("utf-8"), [w for w in words if "=" not in w]
            assert [name for name in targets if f"\n{name}:" not in text] == []
        elif words and words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), words
