"""Proves that users see the same after a rebuild: compares the commands and `Detector` with
frozen.json.

python tests/trials/frozen.py           compares; exit code 1 when a value differs or a key is gone
python tests/trials/frozen.py record    writes frozen.json

Only public entry points are used, so that modules may be renamed, merged and deleted. Takes a
minute or two.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_suffix(".json")
SAMPLE = Path("data/sample/photos")
SHARED = Path("../shared/photos")
PHOTOS = 50  # half of them, or as many as there are, from SAMPLE; the others from SHARED

# Keys that were renamed on purpose: a pattern → its replacement; "^old/key$" → "" for one that was
# dropped.
RENAMED: dict[str, str] = {r"^metrics/localisation/(per_kind/.*|mask_area|n_patches)$": ""}

# Bounds of intervals come from resampling, and may move with the order of its draws.
SKIPPED = re.compile(r"(^|[/_])(low|high|interval|intervals)(/|$)")
# Kept as keys; their values change with the day, the machine or the installed releases.
VOLATILE = re.compile(
    r"/(ms|created|date|seen|git_commit|command|checkpoint|data_root|root|file|versions/.*)$"
)
FROM_NETWORK = re.compile(
    r"^(predict|detector|evidence)/"
)  # floats of other machines differ in the last digits


def run(values: dict[str, Any], name: str, *command: str) -> str:
    """Runs Python with `command` in ROOT, records the exit code, and returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8"
    )
    if done.returncode > 1:
        sys.exit(
            f"{' '.join(command)}\nended with exit code {done.returncode}:\n"
            f"{done.stdout}{done.stderr}"
        )
    values[f"{name}/exit_code"] = done.returncode
    return done.stdout


def put(values: dict[str, Any], key: str, found: Any) -> None:
    """Adds every leaf below `found` under its path; the length of a list is a value too."""
    if SKIPPED.search(key):
        return
    if isinstance(found, dict) and found:
        for name, value in found.items():
            put(values, f"{key}/{name}", value)
    elif isinstance(found, list) and any(not isinstance(item, int) for item in found):
        values[f"{key}/length"] = len(found)
        for index, item in enumerate(found):
            put(values, f"{key}/{index}", item)
    elif VOLATILE.search(key):
        values[key] = "*"
    elif isinstance(found, str) and found.startswith("iVBOR"):  # a PNG
        values[key] = "PNG {}x{}".format(*Image.open(io.BytesIO(base64.b64decode(found))).size)
    else:
        values[key] = found


def chosen(folder: Path, count: int) -> list[str]:
    """`count` photos of a folder at equal distances in the order of their names."""
    photos = sorted(
        path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.jpg")
    )
    stride = max(1, len(photos) // count)
    return [f"{folder.as_posix()}/{name}" for name in photos[::stride][:count]]


def measure() -> dict[str, Any]:
    values: dict[str, Any] = {}
    realdamage, threads = ("-m", "realdamage"), "--threads=1"
    model = json.loads(run(values, "info", *realdamage, "info", "--json"))
    put(values, "info", model)
    photos = chosen(SAMPLE, PHOTOS // 2)
    photos += chosen(SHARED, PHOTOS - len(photos))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        data = (
            "data.root=data/sample",
            "data.split=null",
            "robustness=jpeg",
            f"paths.out={out}",
            "name=evaluation",
        )
        run(values, "evaluate", "src/realdamage/evaluate.py", f"checkpoint={model['file']}", *data)
        put(values, "metrics", json.loads((out / "evaluation/metrics.json").read_text("utf-8")))

        run(
            values,
            "predict",
            *realdamage,
            "predict",
            *photos,
            "--output",
            str(out / "verdicts.jsonl"),
            threads,
        )
        for line in (out / "verdicts.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            kept = {name: row[name] for name in ("outcome", "score", "probability")}
            codes = ", ".join(reason["code"] for reason in row["reasons"])
            put(values, f"predict/{row['file_name']}", {**kept, "reasons": codes})

        claim = ["--photo", f"{SAMPLE}/000004_ai_region.jpg", f"{SAMPLE}/000005_damaged.jpg"]
        claim += [
            "--listing",
            f"{SAMPLE}/000004_original.jpg",
            "--text=arrived broken",
            "--claim-id=frozen",
        ]
        run(values, "claim", *realdamage, "claim", *claim, "--out", str(out / "evidence"), threads)
        put(values, "evidence", json.loads((out / "evidence/evidence.json").read_text("utf-8")))

        run(values, "audit", *realdamage, "audit", "data/sample", "--json", str(out / "audit.json"))
        audit = json.loads((out / "audit.json").read_text("utf-8"))
        audit["tests"] = {test.pop("name"): test for test in audit["tests"]}
        audit["verdict"].pop("tests")  # the same figures again, rounded, with their intervals
        put(values, "audit", audit)

        for name, *options in (["platt"], ["loose", "--fpr=0.4", "--miss=0.4"]):
            calibrated = str(out / f"{name}.onnx")
            options += ["--manifest=data/sample", "--split=val", f"--output={calibrated}", threads]
            run(values, f"calibrate/{name}", *realdamage, "calibrate", model["file"], *options)
            now = json.loads(
                run(values, f"calibrate/{name}/info", *realdamage, "info", calibrated, "--json")
            )
            put(
                values, f"calibrate/{name}", {part: now[part] for part in ("calibration", "policy")}
            )

    sys.path.insert(0, str(ROOT / "src"))
    from realdamage import Detector

    verdicts = Detector.load().predict([ROOT / name for name in photos[:4]])
    for name, verdict in zip(photos, verdicts, strict=False):
        mean = float(verdict.heatmap.mean())  # its size is that of the PNG in the JSON
        put(values, f"detector/{name}", {**json.loads(verdict.to_json()), "heatmap_mean": mean})
    return values


def same(key: str, before: Any, now: Any) -> bool:
    if type(before) is type(now) is float:
        relative, absolute = (1e-6, 1e-6) if FROM_NETWORK.match(key) else (1e-9, 1e-12)
        return math.isclose(before, now, rel_tol=relative, abs_tol=absolute)
    return type(before) is type(now) and before == now


def compare(recorded: dict[str, Any], now: dict[str, Any]) -> int:
    """Prints every difference, and what is new; returns the exit code."""
    differences, keys = [], set()
    for old, before in recorded.items():
        key = reduce(lambda key, pattern: re.sub(pattern, RENAMED[pattern], key), RENAMED, old)
        if not key:
            continue
        keys.add(key)
        filled = before == {} and any(other.startswith(f"{key}/") for other in now)
        if not filled and not (key in now and same(key, before, now[key])):
            differences.append(f"{old}: {before!r} → {repr(now[key]) if key in now else 'gone'}")
    new = [key for key in now if key not in keys]
    agree = len(keys) - len(differences)
    summary = f"{agree} values agree, {len(differences)} differ, {len(new)} are new"
    print(*(f"new: {key} = {now[key]!r}" for key in new), *differences, summary, sep="\n")
    return 1 if differences else 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["record"]):
        sys.exit(__doc__)
    if not (shared := (ROOT / SHARED).is_dir()):
        print(f"{SHARED} is not there: its photos are skipped")
    found = measure()
    if sys.argv[1:] == ["record"]:
        RECORDED.write_text(
            json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
        )
        sys.exit(print(f"{len(found)} values → {RECORDED.relative_to(ROOT)}"))
    recorded = json.loads(RECORDED.read_text("utf-8")).items()
    sys.exit(
        compare(
            {k: v for k, v in recorded if shared or not k.startswith(f"predict/{SHARED}/")}, found
        )
    )
