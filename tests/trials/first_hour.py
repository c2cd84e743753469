"""What a new user types and sees: the README's own commands, in their order.

    python tests/trials/first_hour.py --typescript data/results/first_hour.txt
    python tests/trials/first_hour.py --outputs

`--typescript` clones the last commit into an empty folder, makes a virtual environment there, types
each command of the README, and writes it down with the time it took and the last lines that it
printed. `--outputs` writes what the README's commands print now below them: after a change of the
packaged model. Tests run the same blocks in small (tests/test_readme.py).
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MINE = "MY_PHOTOS"
"""What the README calls the user's own folder of photos."""
CLAIM = {
    "crack.jpg": "000004_ai_region.jpg",
    "box.jpg": "000066_damaged.jpg",
    "shop.jpg": "000004_original.jpg",
}
"""The photos of the README's claim, and which of data/sample take their place."""
_BLOCK = re.compile(
    r"```(?P<language>bash|python)\n(?P<text>.*?)```(?:\n\n```\n(?P<shown>.*?)```)?", re.S
)
_INSTALL = re.compile(r"""pip install (?:-e )?(?:"[^"\n]*"|\S+)""")
_LINES, _WIDTH = 12, 130
"""Lines of a command's output in the typescript (one of an install), and characters of a line."""
_SERVER_SECONDS = 120


class Block(NamedTuple):
    """A block of commands and the output that is shown below it; "" if there is none."""

    language: str
    text: str
    shown: str


class Done(NamedTuple):
    """A command that has ended."""

    command: str
    seconds: float
    code: int
    out: str
    err: str


def blocks(readme: str) -> list[Block]:
    """The README's blocks of bash and Python, in order."""
    found = _BLOCK.finditer(readme)
    return [Block(each["language"], each["text"], each["shown"] or "") for each in found]


def commands(block: Block) -> list[str]:
    """The commands of a block, without comments; a Python block is one command."""
    if block.language == "python":
        return [f"python - <<'EOF'\n{block.text}EOF"]
    lines = block.text.replace("\\\n", " ").splitlines()
    parsed = (shlex.split(line, comments=True) for line in lines)
    return [shlex.join(words) for words in parsed if words]


def installs(block: Block) -> list[str]:
    """The installs that a block names, in commands or in comments."""
    return [] if block.language == "python" else _INSTALL.findall(block.text)


def photos_of_a_new_user(folder: Path, per_condition: int) -> None:
    """Puts some real photos of data/sample into `folder`/MY_PHOTOS, and the claim's photos next to
    it. per_condition: at most so many of damaged products, and of others."""
    photos = sorted((ROOT / "data/sample/photos").glob("*.jpg"))
    (folder / MINE).mkdir()
    for kind in ("damaged", "original"):
        for path in [path for path in photos if path.stem.endswith(kind)][:per_condition]:
            shutil.copy(path, folder / MINE)
    for name, source in CLAIM.items():
        shutil.copy(ROOT / "data/sample/photos" / source, folder / name)


def run(command: str, folder: Path, environment: Mapping[str, str]) -> Done:
    """Runs a command as a shell does. `realdamage serve` is asked once, and stopped."""
    started = time.monotonic()
    if command.startswith("realdamage serve"):
        code, out, err = _serve(command, folder, environment)
    else:
        shell = ["bash", "-c", command]
        done = subprocess.run(
            shell, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    return Done(command, time.monotonic() - started, code, out, err)


def _serve(command: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, the answer to a question, and what the service logged. Ctrl-C, code 130, counts as
    0."""
    with tempfile.TemporaryFile("w+") as log:
        words = shlex.split(command)
        with subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log) as server:
            answer, give_up = "", time.monotonic() + _SERVER_SECONDS
            while not answer and server.poll() is None and time.monotonic() < give_up:
                time.sleep(0.2)
                log.seek(0)
                address = re.search(r"http://[\d.]+:\d+", log.read())
                if address:
                    with urllib.request.urlopen(f"{address[0]}/healthz", timeout=60) as response:
                        answer = response.read().decode()
            server.send_signal(signal.SIGINT)
            code = server.wait(60)
        log.seek(0)
        logged = log.read()
    return (0 if code == 130 and answer else code or 1), f"{answer}\n", logged


def with_outputs(readme: str, outputs: Mapping[str, str]) -> str:
    """The README with other outputs shown. outputs: by the text of the block above them."""

    def replaced(found: re.Match[str]) -> str:
        shown, output = found["shown"], outputs.get(found["text"])
        if shown is None or output is None:
            return found[0]
        start = found.start("shown") - found.start()
        return f"{found[0][:start]}{output.rstrip()}\n{found[0][start + len(shown) :]}"

    return _BLOCK.sub(replaced, readme)


def own_environment(bin_folder: Path) -> dict[str, str]:
    """This process's environment with another Python first on the path."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "PATH": f"{bin_folder}{os.pathsep}{kept['PATH']}"}


def shown_outputs(readme: str) -> dict[str, str]:
    """What the blocks print whose output the README shows. Raises SystemExit: one of them fails."""
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        shutil.copytree(ROOT / "data/sample", Path(folder) / "data/sample")
        for block in blocks(readme):
            if not block.shown:
                continue
            (command,) = commands(block)
            done = run(command, Path(folder), own_environment(Path(sys.executable).parent))
            if done.code:
                sys.exit(f"{done.command}\n{done.err}")
            outputs[block.text] = done.out
    return outputs


def first_hour(folder: Path, per_condition: int) -> Iterator[Done]:
    """Types the README's commands in a new clone in `folder`; gives each as it ends, and stops at
    the first that fails."""
    clone, python = folder / "realdamage", folder / "venv/bin"
    home = {"HOME": str(folder), "PYTHONPATH": "", "HYDRA_FULL_ERROR": "0"}
    environment = {**own_environment(python), **home}
    setup = (f"git clone -q {ROOT} realdamage", "python3 -m venv venv")
    for command in setup:
        yield run(command, folder, dict(os.environ))._replace(
            command=command.replace(str(ROOT), "https://…/realdamage")
        )
    photos_of_a_new_user(clone, per_condition)
    for block in blocks(README.read_text("utf-8")):
        typed = [each for each in commands(block) if not each.startswith("pip install")]
        for command in (*installs(block), *typed):
            yield run(command, clone, environment)


def typescript(done: Sequence[Done], folder: Path, per_condition: int) -> str:
    """The text of the file: each command, its time, and the last lines that it printed."""
    total = sum(each.seconds for each in done) / 60
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    load = os.getloadavg()[2]
    lines = [
        "A new user's first hour: the commands of README.md, typed in a new clone.",
        f"Written by tests/trials/first_hour.py at {commit[:12]}, {datetime.date.today()}.",
        f"{total:.0f} minutes in all, on {os.cpu_count()} processors that were shared: on average "
        f"{load:.1f} processes wanted them at the end.",
        f"{MINE}: {2 * per_condition} real photos of data/sample, half of damaged products.",
        "Of each output, the last lines. The service was asked once and stopped.",
    ]
    for each in done:
        printed = f"{each.out}{each.err}".replace(str(folder / "realdamage"), ".")
        printed = printed.replace(str(folder), "..")
        shown = [line.rstrip() for line in printed.splitlines() if line.strip()]
        most = 1 if each.command.startswith("pip install") else _LINES
        left_out = [f"    … ({len(shown) - most} lines above)"] if len(shown) > most else []
        command = each.command.replace("\n", "\n  ")
        failed = f", exit code {each.code}" if each.code else ""
        lines += ["", f"$ {command}", f"    [{each.seconds:.0f} s{failed}]", *left_out]
        for line in shown[-most:]:
            short = line if len(line) <= _WIDTH else textwrap.shorten(line, _WIDTH)
            lines.append(f"    {short}")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outputs", action="store_true", help="rewrite those shown in the README")
    parser.add_argument("--typescript", type=Path, metavar="FILE", help="write the first hour")
    parser.add_argument("--photos", type=int, default=20, help="damaged ones, and as many others")
    options = parser.parse_args()
    readme = README.read_text("utf-8")
    if options.outputs:
        README.write_text(with_outputs(readme, shown_outputs(readme)), "utf-8")
    if options.typescript:
        done = []
        with tempfile.TemporaryDirectory() as folder:
            for each in first_hour(Path(folder), options.photos):
                done.append(each)
                print(f"{each.seconds:6.0f} s  {each.command.splitlines()[0]}", flush=True)
                text = typescript(done, Path(folder), options.photos)
                options.typescript.write_text(text, "utf-8")
                if each.code:
                    print(each.err, file=sys.stderr)
                    break
        return int(bool(done[-1].code))
    return 0


if __name__ == "__main__":
    sys.exit(main())
