"""A service in this very process, with a network that sees redness, and photos as callers send
them."""

import io
import os
import runpy
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from realdamage.core.tiles import PixelSpec
from realdamage.service.app import create_app
from realdamage.service.auth import hash_key
from realdamage.service.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def processes_without_ocr(tmp_path_factory):
    """As `without_ocr`, for the services that tests start as processes."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['rapidocr'] = None\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def write_model(save_red_model):
    """`write_model(path, model_version="test-2")`: evidence = (mean red - mean blue) / 16."""
    spec = PixelSpec(tile=32, patch=16, overlap=16, max_side=640)
    return partial(save_red_model, pixel_spec=spec)


@pytest.fixture(scope="session")
def model_file(write_model, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture
def serve(model_file):
    """`serve(max_photos=2, …)`: a client of a started service with these settings; stopped at
    the test's end."""
    with ExitStack() as stack:

        def start(**settings):
            # The deadline is for busy machines.
            fixed = {"model": model_file, "threads": 1, "workers": 2, "deadline": 200}
            app = create_app(Settings(**{**fixed, **settings}))
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield start


@pytest.fixture(scope="session")
def encode():
    """`encode("JPEG", red=False, size=(96, 64))`: a bluish photo under noise, with a red
    rectangle if asked."""

    def make(form="JPEG", *, red=False, size=(96, 64), seed=0, noise=6):
        width, height = size
        rgb = np.random.default_rng(seed).normal((80, 100, 144), noise, (height, width, 3))
        if red:
            rgb[height // 4 : height // 2 + 16, width // 4 : width // 2 + 16] += (120, 0, -104)
        data = io.BytesIO()
        Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8)).save(data, form)
        return data.getvalue()

    return make


class Shop:
    """A service with a store, called with the key of each name, or without keys."""

    def __init__(self, client, encode, names):
        self.client, self._encode = client, encode
        self.keys = {name: _key(name) for name in names}
        self.service = client.app.state.service

    def call(self, method, path, by="shop", **options):
        """path: below /v1, or whole. by: whose key; without one where nobody has that name."""
        headers = {"X-API-Key": self.keys[by]} if by in self.keys else {}
        path = path if path.startswith("/") else f"/v1/{path}"
        return self.client.request(method, path, headers=headers, **options)

    def claim(self, claim_id, by="shop", *, seed=0, **fields):
        """The answer to a claim of one photo, which is kept."""
        data = {"keep": "true", "claim_id": claim_id, **fields}
        return self.call("POST", "claims", by, files=self.photos(seed), data=data)

    def photos(self, *seeds, field="photos"):
        """Files of a form; nearly without noise, so that comparisons find little to do."""
        photos = [self._encode(size=(320, 240), noise=1, seed=seed) for seed in seeds]
        return [(field, (f"{seed}.jpg", one)) for seed, one in zip(seeds, photos, strict=True)]


def _key(name):
    return f"{name}-" + "k" * 32


@pytest.fixture
def open_shop(serve, encode, tmp_path, database_url):
    """`open_shop(roles={"shop": "", "ana": "reviewer"}, …)`: a `Shop` with these keys, and with
    these settings."""

    def start(roles=MappingProxyType({}), **settings):
        lines = [f"{hash_key(_key(name), name)} {role}" for name, role in roles.items()]
        place = {"store": tmp_path / "store", "database": database_url}
        client = serve(api_key_hashes=",".join(lines), **{**place, **settings})
        return Shop(client, encode, tuple(roles))

    return start


@pytest.fixture
def start_process(tmp_path):
    """`start_process("--model", …)`: a `Process` of tests/serving.py in an empty folder."""
    process = runpy.run_path(str(Path(__file__).parents[1] / "serving.py"))["Process"]
    with ExitStack() as stack:

        def start(*options, **given):
            (tmp_path / "cwd").mkdir(exist_ok=True)
            started = process(*map(str, options), cwd=tmp_path / "cwd", **given)
            stack.callback(started.kill)
            return started

        yield start


@pytest.fixture(scope="session")
def wait_until():
    """`wait_until(condition)`: until it is true, at most two minutes."""

    def wait(condition):
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)  # asked more often, the service gets little of the processor

    return wait


@pytest.fixture(scope="session")
def held():
    """`with held(client):` the network of the service waits until the block ends."""

    @contextmanager
    def hold(client):
        service = client.app.state.service
        shared, gate = service.loaded_model().scorer, threading.Event()
        scorer = shared._scorer
        shared._scorer = lambda tiles: (gate.wait(10), scorer(tiles))[1]
        try:
            yield
        finally:
            gate.set()
            shared._scorer = scorer

    return hold


@pytest.fixture(scope="session")
def trial():
    """`trial("hostile_photos")`: the module of tests/trials."""

    def load(name):
        path = Path(__file__).parents[1] / "trials" / f"{name}.py"
        spec = spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module

    return load
