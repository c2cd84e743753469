"""Every command in the documents exists, with its options, configuration keys and files."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from realdamage.commands import app, cli  # noqa: F401 (it registers the commands)
from realdamage.configuration import compose
from realdamage.service.settings import Settings, option_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md")
PAGES += ("src/realdamage/service/README.md", "src/realdamage/evaluation/README.md")
COMMANDS = get_command(app.commands).commands  # type: ignore[attr-defined]
SERVE = {option_of(name) for name in Settings.model_fields} | {"--hash-key"}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        words = " ".join(shlex.split(line, comments=True))
        for program, *rest in filter(None, map(str.split, re.split(r"[|;]|&&|>+", words))):
            if program == "realdamage":
                known = {name for one in COMMANDS[rest[0]].params for name in one.opts}
                known |= SERVE if rest[0] == "serve" else set()
                assert {word for word in rest if word.startswith("--")} <= known, line
            elif program.startswith("realdamage-"):
                keys = [re.sub(r"=([\d.]+),.*", r"=\1", one) for one in rest if one[0] != "-"]
                compose(program.partition("-")[2], keys)
            elif program == "make":
                assert {word for word in rest if "=" not in word} <= set(targets), line
            elif rest and rest[0].endswith(".py"):
                assert (ROOT / rest[0]).is_file(), line
