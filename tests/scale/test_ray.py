"""Ray on a cluster of two machines, which are processes of this one: the local runner's rows and
the local recipe's photos, also when a machine or a worker is lost in the middle."""

import inspect
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx
import pandas as pd
import psutil
import pytest

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: loopback only
    # On busy processors everything starts late.
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": "0",  # Ray has 15: all else on the machine would go first
}

import ray
from ray import serve
from ray.cluster_utils import Cluster

from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError
from realdamage.scale import Judge, score
from realdamage.scale.serve import Replica
from realdamage.synthesis.recipe import GeneratorSettings, Recipe, SourceSettings
from realdamage.synthesis.runner import synthesize

T = TypeVar("T")
PHOTOS = 48
Photos = Callable[[int], list[str]]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


def _start(cluster, **more):
    """A machine with one processor and few helpers."""
    helpers = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
    cluster.add_node(
        num_cpus=1,
        object_store_memory=80 * 2**20,
        include_log_monitor=False,
        no_monitor=True,
        **{f"{name}_port": _free_port() for name in helpers},
        **more,
    )


def _without_waiting(start):
    """Ray gives a helper 15 s to name the port that we gave it, too little on busy processors."""

    def started(*given, **more):
        known = inspect.signature(start).bind(*given, **more).arguments
        name = f"dashboard_agent_listen_port_{known['node_id']}"
        Path(known["session_dir"], name).write_text(str(known["dashboard_agent_listen_port"]))
        return start(*given, **more)

    return started


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def cluster():
    """Two machines with one processor each, and the first is said to have a GPU; loopback only."""
    cluster = Cluster()
    with pytest.MonkeyPatch.context() as patched:
        started = _without_waiting(ray._private.services.start_raylet)
        patched.setattr(ray._private.services, "start_raylet", started)
        _start(cluster, include_dashboard=False, num_gpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        _start(cluster)  # now, so that it is not the one that this process talks to
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def kill_a_worker(title):
    """One of the actors whose process has this title."""
    processes = psutil.Process().children(recursive=True)
    victim = next(one for one in processes if title in "".join(one.cmdline()))
    victim.kill()
    victim.wait()


def contents(root):
    """Of all files of a set, without the mark, which names its folder."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "mark.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_recipe_makes_the_same_bytes_although_a_worker_is_killed(
    write_set, tmp_path, monkeypatch
):
    write_set(tmp_path / "source", groups=5)
    monkeypatch.chdir(tmp_path)  # the workers find relative paths as well
    recipe = Recipe(
        source=SourceSettings("source"),
        shares={"default": {"ai_region": 1.0, "ai_whole": 0.5, "pasted": 0.5}},
        paint_share=0.5,
        generators={"house": GeneratorSettings("house", "house")},
    )
    local = synthesize(replace(recipe, workers=1), tmp_path / "local", {})

    def killing(steps, total, description):
        for number, step in enumerate(steps):
            if number == 1:
                kill_a_worker("ray::MapWorker(Map(_Making))")
            yield step

    made = synthesize(recipe, "ray", {}, runner="ray", progress=killing)
    assert (made.made, made.photos) == (local.made, local.photos)
    assert contents(Path("ray")) == contents(Path("local"))


@dataclass(frozen=True)
class ShowsGpus(Judge):
    """Its actor only says which GPUs it got."""

    def detector(self):
        if self.device == "cuda":
            raise RealDamageError(f"{ray.get_gpu_ids()}", code="gpus")
        return super().detector()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_on_cuda_each_actor_gets_a_gpu(model, photos, tmp_path, monkeypatch):
    names = photos(2)
    judge = ShowsGpus(model.model, device="cuda", threads=1)
    with pytest.raises(RealDamageError) as caught:
        score(names, tmp_path / "ray", engine="ray", judge=judge)
    assert (caught.value.code, str(caught.value)) == ("gpus", "[0]")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(RealDamageError) as caught:
        score(names, tmp_path / "none", engine="ray", judge=judge)
    assert caught.value.code == "no_gpu"


@pytest.mark.slow
def test_a_lost_machine_loses_nothing_and_doubles_nothing(cluster, model, photos, rows, tmp_path):
    """One of the two machines is killed after the first rows."""
    names = photos(PHOTOS)
    Path(names[5]).write_bytes(b"rubbish")
    score(names, tmp_path / "local", judge=model, part_size=10)
    seen = []

    def killing(steps, total, description):
        for step in steps:
            seen.append(step)
            if len(seen) == 8:
                (other,) = cluster.worker_nodes
                cluster.remove_node(other, allow_graceful=False)
            yield step

    done = score(names, tmp_path / "ray", engine="ray", judge=model, part_size=10, progress=killing)
    assert done.judged == len(seen) == PHOTOS
    assert len(list((tmp_path / "ray").glob("part-*.parquet"))) == 5
    pd.testing.assert_frame_equal(rows(tmp_path / "ray"), rows(tmp_path / "local"))
    (tmp_path / "ray" / "part-000003.parquet").unlink()
    assert score(names, tmp_path / "ray", engine="ray", judge=model, part_size=10).judged == 10
    pd.testing.assert_frame_equal(rows(tmp_path / "ray"), rows(tmp_path / "local"))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_lost_replica_costs_at_most_a_second_try(model, photos):
    """Photos are sent one after the other; in between, the replica that answers them is killed."""
    names = photos(6)
    port = _free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    app = Replica.options(
        num_replicas=1, autoscaling_config=None, ray_actor_options={"num_cpus": 0}
    )
    serve.run(app.bind(model))
    detector, tries = Detector(model.model), 0
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    for index, name in enumerate(names):
        if index == 3:
            actors = ray.util.list_named_actors(all_namespaces=True)
            (replica,) = [one for one in actors if "#Replica#" in one["name"]]
            ray.kill(ray.get_actor(**replica))
        data = Path(name).read_bytes()
        while True:
            tries += 1
            try:
                answer = client.post("/", content=data)
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                break
        assert answer.json()["score"] == detector.predict(data).score
    refused = client.post("/", content=b"rubbish")
    serve.shutdown()
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unreadable_photo")
    assert tries <= 7
