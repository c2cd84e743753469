"""What the tests of all packages share: photos made from numbers, a small set of real and synthetic
photos, and the commands run in this process, with a network so small that a whole training run
takes a second.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import runpy
import secrets
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

# Before numpy and torch look: on networks this small two threads cost more than they bring, and on
# busy processors ten times as much, as they wait for each other.
if "--benchmark-enable" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx.parser
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from realdamage.core.model_file import ModelMetadata, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.core.pooling import Pooling
from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import read_manifest, write_manifest

# A shell that starts the tests in the background makes them, and every process that they start,
# ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGINT, signal.default_int_handler)


TINY_RUN = (
    "model.backbone=test_vit",
    "model.pretrained=false",
    "model.tile=64",
    "model.overlap=16",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "data.batch_units=7",
    "data.tiles_per_photo=1",
    "callbacks.pictures.photos=4",
)


class Finished(NamedTuple):
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def without_ocr(monkeypatch):
    """Claims are judged without the recogniser of words, which takes seconds to start; its own test
    asks for it."""
    if "realdamage.claims.marks" in sys.modules:
        monkeypatch.setattr("realdamage.claims.marks.has_ocr", lambda: False)


def _log_settings():
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    return {one: (one.level, one.handlers[:]) for one in known if isinstance(one, logging.Logger)}


@pytest.fixture(autouse=True)
def without_new_log_handlers():
    """Removes the log handlers that a test's commands leave behind (Hydra, the service), and resets
    levels. The handlers write to the captured output, or to a file in the test's folder, and both
    are gone in the next test.
    """
    before = _log_settings()
    yield
    for logger, (now, handlers) in _log_settings().items():
        level, known = before.get(logger, (now, []))
        if level != now:  # setting one empties the cache of every logger, and there are thousands
            logger.setLevel(level)
        for handler in handlers:
            if handler not in known:
                logger.removeHandler(handler)
                handler.close()


@pytest.fixture(scope="session")
def photo_factory():
    """`photo_factory(height, width, seed)`: coloured blobs under sensor noise, uint8 [h, w, 3]."""

    def make(height, width, seed):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(40, 216, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64
        )
        return np.clip(np.rint(smooth + rng.normal(0, 8, smooth.shape)), 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def signing():
    """A `Signing` of tests/signing.py: `signing.sign("digitalCapture", data=jpeg)`, and its
    authority's certificate."""
    return runpy.run_path(str(Path(__file__).with_name("signing.py")))["Signing"]()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, started once; see tests/postgres.py."""
    module = runpy.run_path(str(Path(__file__).with_name("postgres.py")))
    if module["find_programs"]() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = module["Server"]()
    yield server
    server.close()


@pytest.fixture(scope="session")
def object_server():
    """moto's S3 on a port of this machine, started once; it can be stopped and started again."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:  # a port of its own, so that it comes back there
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(object_server, monkeypatch):
    """The URL of a new bucket there; address and keys are in the environment, as for `serve`."""
    import s3fs

    host, port = object_server.get_host_and_port()
    environment = {"ENDPOINT_URL": f"http://{host}:{port}", "DEFAULT_REGION": "us-east-1"}
    environment |= {"ACCESS_KEY_ID": "shop", "SECRET_ACCESS_KEY": "secret"}
    for name, value in environment.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"claims-{secrets.token_hex(6)}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


def pytest_collection_modifyitems(items):
    """A slow test, which each benchmark and each that needs a trained network is, gets a second
    chance, as servers, browsers and clusters may start too late on a busy machine; the summary
    lists those that needed it. Each worker begins with its share of them, so that none is left
    running at the end while the others have nothing to do."""
    slow = {}
    for item in items:
        if {"benchmark", "tiny_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=1))
            slow.setdefault(item.path, []).append(item)
    shares = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]
    for of_file in sorted(slow.values(), key=len, reverse=True):  # a file's tests share fixtures
        min(shares, key=len).extend(of_file)
    fast = iter([item for item in items if not item.get_closest_marker("slow")])
    size = -(-len(items) // len(shares))  # pytest-xdist gives each worker as many, in this order
    for share in shares:
        share.extend(itertools.islice(fast, max(0, size - len(share))))
    items[:] = [item for share in shares for item in share]


def pytest_generate_tests(metafunc):
    if metafunc.definition.get_closest_marker("databases"):
        kinds = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
        metafunc.parametrize("database_url", kinds, indirect=True)


@pytest.fixture
def database_url(request):
    """A new database for a store: "", which is SQLite, and for tests marked `databases` also the
    URL of one of PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return ""
    return request.getfixturevalue("postgres").new_url()


@pytest.fixture(scope="session")
def red_network():
    """A network that sees redness: evidence of a patch = (mean red - mean blue) / 16, logit = its
    mean."""
    model = onnx.parser.parse_model(
        (Path(__file__).parent / "core" / "redness.onnx.txt").read_text()
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def red_metadata():
    return ModelMetadata(
        pixel_spec=PixelSpec(tile=32, patch=16, overlap=16, max_side=160),
        pooling=Pooling(),
        calibration=Calibration(slope=1.0, intercept=0.0, prior=0.5),
        policy=Policy(
            t_synthetic=1.0, t_real=-1.0, fpr=0.01, miss=0.05, negatives="damaged", photos={}
        ),
        backbone="redness",
        demo=False,
        model_version="test-1",
    )


@pytest.fixture(scope="session")
def save_red_model(red_network, red_metadata):
    """`save_red_model(path, **changes)`: that network as a calibrated model, some of its metadata
    changed."""

    def save(path, **changes):
        write_model_file(path, red_network, replace(red_metadata, **changes))
        return path

    return save


def _generated(rgb):
    """What a toy generator writes: every pixel four times, and no noise between them."""
    height, width = rgb.shape[:2]
    half = Image.fromarray(rgb).resize(((width + 1) // 2, (height + 1) // 2), Image.Resampling.BOX)
    return np.repeat(np.repeat(np.asarray(half), 2, axis=0), 2, axis=1)[:height, :width]


@pytest.fixture(scope="session")
def write_set(photo_factory):
    """`write_set(root, groups=16, splits=True)` writes PNG photos of 96 to 160 px, their masks and
    the manifest.

    Every group has a real photo (every second one damaged) and a synthetic pair with a mask,
    identical outside of it; every fourth also has an `ai_whole`, a `pasted` or an `annotated`
    photo. Of 16 groups 8 train, 4 are val, 4 test. Neither source nor condition separates the
    labels: the set passes the audit.
    """

    def write(root, groups=16, *, splits=True):
        rows = []
        (root / "photos").mkdir(parents=True)
        (root / "masks").mkdir()
        for index in range(groups):
            rng = np.random.default_rng([7, index])
            height, width = (int(side) for side in rng.integers(96, 161, 2))
            rgb = photo_factory(height, width, index)
            mask = np.zeros((height, width), np.bool_)
            top, left = (int(rng.integers(0, side - 48)) for side in (height, width))
            mask[top : top + 48, left : left + 48] = True
            annotated = rgb.copy()
            annotated[10:20, 10:60] = (255, 0, 0)
            generated = _generated(rgb)
            region = np.where(mask[..., None], generated, rgb)
            pasted = np.where(mask[..., None], 255 - rgb, rgb)
            base = "damaged" if index % 2 else "original"
            made = [(base, rgb, None), ("ai_region", region, mask)]
            made += [
                [("ai_whole", generated, np.ones_like(mask))],
                [("pasted", pasted, mask)],
                [("annotated", annotated, None)],
                [],
            ][index % 4]
            for kind, pixels, painted in made:
                name = f"photos/{index:02d}_{kind}.png"
                Image.fromarray(pixels).save(root / name)
                mask_name = f"masks/{index:02d}_{kind}.png" if painted is not None else ""
                if painted is not None:
                    Image.fromarray(np.where(painted, 255, 0).astype(np.uint8)).save(
                        root / mask_name
                    )
                rows.append(
                    {
                        "file_name": name,
                        "label": "real" if painted is None else "synthetic",
                        "kind": kind,
                        "condition": "damaged" if index % 2 else "intact",
                        "damage": "cracked" if index % 2 else "",
                        "generator": ("even", "odd")[index % 2] if kind.startswith("ai_") else "",
                        "family": "toy" if kind.startswith("ai_") else "",
                        "source": f"shop{index % 2}",
                        "group": f"group{index:02d}",
                        "pair": "" if kind == base else f"photos/{index:02d}_{base}.png",
                        "mask_file_name": mask_name,
                        "split": ("train", "train", "val", "test")[index // 4 % 4]
                        if splits
                        else "",
                    }
                )
        write_manifest(root, pd.DataFrame(rows))
        return root

    return write


@pytest.fixture
def write_photos(tmp_path):
    """`write_photos(rows)`: each row names `file_name`, `label`, what else it likes, and `red`
    (0..255, not written).

    Photos are 80×64 PNG files with blue 128, so that they score (red - 128) / 16; those with a
    `mask_file_name` are as red only in their left 40 columns, which the mask covers, and else 0.
    """

    def write(rows):
        folder = tmp_path / "photos"
        folder.mkdir()
        for row in rows:
            pixels = np.full((64, 80, 3), (0, 0, 128), dtype=np.uint8)
            painted = np.zeros((64, 80), dtype=np.uint8)
            painted[:, : 40 if row.get("mask_file_name") else 80] = 255
            pixels[..., 0] = np.where(painted > 0, row["red"], 0)
            Image.fromarray(pixels).save(folder / str(row["file_name"]))
            if row.get("mask_file_name"):
                Image.fromarray(painted).save(folder / str(row["mask_file_name"]))
        write_manifest(folder, pd.DataFrame(rows).drop(columns="red"))
        return read_manifest(folder)

    return write


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`made_once("name", make)`: a folder that `make(folder)` fills, once for all workers."""

    def once(name, make):
        root = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            root = root.parent  # each worker's own folder is below that of the whole run
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed here
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def tiny_manifest(write_set, made_once):
    """A folder with 16 groups, 44 photos (see `write_set`); tests must not change it."""
    return made_once("tiny", lambda folder: write_set(folder / "photos")) / "photos"


@pytest.fixture
def with_table(tiny_manifest, tmp_path):
    """`with_table(change)`: a folder with the photos of `tiny_manifest` and the table that
    `change(table)` returns."""

    def write(change):
        root = tmp_path / "set"
        root.mkdir()
        for name in ("photos", "masks"):
            (root / name).symlink_to(tiny_manifest / name)
        write_manifest(root, change(read_manifest(tiny_manifest).table))
        return root

    return write


@pytest.fixture(scope="session")
def tiny_config(tiny_manifest):
    """`tiny_config(run_folder, "seed=1", …)`: the configuration of a small training run on
    `tiny_manifest`."""
    from realdamage.configuration import compose

    def make(run, *overrides):
        return compose(
            "train", [*TINY_RUN, f"data.root={tiny_manifest}", f"paths.run={run}", *overrides]
        )

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny_config, made_once):
    """The folder of a finished training run: best.ckpt, last.ckpt, config.yaml, logs; tests must
    not change it."""
    from realdamage.commands import train

    options = ("name=tiny", "model.lr=3e-3", "trainer.max_epochs=3")
    return made_once("run", lambda root: train.run(tiny_config(root / "tiny", *options))) / "tiny"


@pytest.fixture(scope="session")
def tiny_onnx(tiny_run, made_once):
    """`tiny_run` as an exported, uncalibrated model file, alone in its folder; tests must not
    change it."""
    from realdamage.commands import export
    from realdamage.configuration import compose

    def make(folder):
        output = (f"output={folder}/tiny.onnx", f"paths.run={folder}")
        export.run(compose("export", [f"checkpoint={tiny_run}/best.ckpt", *output]))

    return made_once("onnx", make) / "tiny.onnx"


@pytest.fixture
def run_command(monkeypatch, capfd, tmp_path):
    """`run_command("train", "name=x", …)` runs a Hydra command as typed, in `tmp_path`, in this
    process."""
    import importlib

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(command, *arguments):
        module = importlib.import_module(f"realdamage.commands.{command}")
        monkeypatch.setattr("sys.argv", [f"realdamage-{command}", *arguments])
        capfd.readouterr()
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Finished(code, *capfd.readouterr())

    return run
