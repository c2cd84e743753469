"""A misspelling stops the run where it is written, and the message names the near match."""

import os

import pytest
from omegaconf import OmegaConf

from realdamage.configuration import compose, run
from realdamage.errors import ConfigError, PhotoError


@pytest.mark.parametrize(
    ("command", "override", "hint"),
    [
        ("train", "+experiment=quickstrat", "did you mean experiment=quickstart?"),
        ("synthesize", "recipe.source.croop=1", "did you mean recipe.source.crop?"),
        ("train", "data.batch_size=8", "use data.batch_units (pairs or single photos per step)"),
        ("train", "+epochs=3", "use trainer.max_epochs"),
    ],
)
def test_a_misspelling_is_named_with_its_near_match(command, override, hint):
    with pytest.raises(ConfigError) as caught:
        compose(command, [override])
    message = str(caught.value)
    assert override.partition("=")[0].lstrip("+") in message.partition(": no such")[0]
    assert message.endswith(hint)
    assert "\n" not in message  # no advice to append the key, no names of Hydra's classes


def test_a_value_of_the_wrong_type_names_key_and_value():
    with pytest.raises(ConfigError, match=r"^model\.lr=fast: .*'fast'"):
        compose("train", ["model.lr=fast"])


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [("train", ["model.lrr=1"], "did you mean model.lr?"), ("export", [], "checkpoint")],
)
def test_the_commands_exit_with_2_and_no_stack_trace(run_command, command, arguments, named):
    finished = run_command(command, *arguments)
    assert finished.code == 2
    assert named in finished.err
    assert "Traceback" not in finished.err
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_an_error_of_ours_gives_its_own_code_and_the_full_trace_only_when_asked(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["realdamage-export", "checkpoint=x.ckpt"])
    seen = []

    def fail(config):
        seen.append(os.environ.get("HYDRA_FULL_ERROR"))
        raise PhotoError(f"{config.checkpoint}: no photo")

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run("export", fail)
    assert stopped.value.code == PhotoError.exit_code == 3
    # Without Hydra's "Error executing job …".
    assert capsys.readouterr().err == "error: x.ckpt: no photo\n"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(PhotoError):
        run("export", fail)
    assert seen == [None, "1"]  # what the task starts sees the environment of the user


@pytest.mark.parametrize(
    "override", ["model.loss=mse", "data.degradations.probability=2", "data.reader.layout=tabel"]
)
def test_a_value_out_of_range_is_named_before_torch_is_needed(override, tmp_path):
    config = compose("train", [override, f"data.root={tmp_path}", f"paths.run={tmp_path}"])
    with pytest.raises(ConfigError, match=override.partition("=")[0].rpartition(".")[2]):
        OmegaConf.to_object(config)
