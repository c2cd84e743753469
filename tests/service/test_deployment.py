"""The files that run and watch the service name what it has."""

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
import yaml

from realdamage.service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = resources.files("realdamage.service")
ALERTS = FOLDER / "alerts.yml"


def test_alerts_use_figures_and_labels_that_the_service_has(serve, tmp_path):
    client = serve(store=tmp_path)
    client.get("/healthz")
    answer = client.get("/metrics").text
    known = set(re.findall(r"^# TYPE (\w+)", answer, re.MULTILINE))
    samples = known | {f"{name}_bucket" for name in known}
    labels = {"job", "instance", "le"}
    registry = client.app.state.service.metrics.registry
    for collector in registry._collector_to_names:
        labels |= set(collector._labelnames)
    rules = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    expressions = " ".join(rule["expr"] for rule in rules)
    used = set(re.findall(r"\brealdamage_\w+", expressions))
    assert len(used) >= 7
    assert used - samples == set()
    assert set(re.findall(r"[{,]\s*(\w+)(?:=~|=)", expressions)) <= labels
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)


def test_prometheus_takes_the_alerts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_and_the_compose_file_name_settings_that_exist():
    recipe = (FOLDER / "Dockerfile").read_text()
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["realdamage"]
    named = set(re.findall(rf"\b({PREFIX}\w+)=", recipe))
    named |= {name for name in compose["environment"] if name.startswith(PREFIX)}
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    assert {f"{PREFIX}HOST", f"{PREFIX}DATABASE", f"{PREFIX}API_KEYS"} <= named <= known
    assert f"http://127.0.0.1:{Settings().port}/healthz" in recipe
