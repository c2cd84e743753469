"""Runs a Hydra command: finds the configs, explains misspellings, and prints errors without a stack
trace."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from realdamage import schema
from realdamage.errors import ConfigError, RealDamageError, near_match

FULL = "HYDRA_FULL_ERROR"
"""Environment variable that asks for stack traces."""

KNOWN_ELSEWHERE = {
    "batch_size": "use data.batch_units (pairs or single photos per step)",
    "epochs": "use trainer.max_epochs",
    "max_epochs": "use trainer.max_epochs",
    "lr": "use model.lr",
    "learning_rate": "use model.lr",
    "optimizer": "it is AdamW: model.lr, model.weight_decay",
    "scheduler": "it is a warm-up and a cosine: model.warmup, model.final_lr",
    "image_size": "use model.tile; photos are cut into tiles, not resized",
    "freeze": "use adapt=head",
    "num_workers": "use data.workers",
    "gpus": "use trainer=gpu, or trainer=ddp trainer.devices=N",
}
"""What users of other training code look for in `realdamage-train`, by the last part of the key."""


def config_folder() -> Path:
    """The repository's `configs`, else those in the installed package. With an editable install
    only the former are up to date."""
    in_repository = Path(__file__).resolve().parents[2] / "configs"
    if (in_repository / "train.yaml").is_file():
        return in_repository
    return Path(str(files("realdamage") / "configs"))


def compose(command: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The configuration that `command` ("train", …) would run with; for libraries and tests. Raises
    ConfigError."""
    schema.register()
    running = GlobalHydra.instance()
    outer, running.hydra = running.hydra, None  # this may be called inside another Hydra command
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = hydra.compose(command, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, command)) from error
    finally:
        running.hydra = outer
    _refuse_added_keys(config, command)
    return config


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries and lists, all references resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def run(command: str, task: Callable[[Any], Any]) -> None:
    """Runs `task` with the configuration that the command line asks for.

    Exits with 2 for a wrong configuration, with the error's own code for a RealDamageError, and
    with a stack trace for faults of the program (with HYDRA_FULL_ERROR=1: for all errors). In a
    sweep, the other runs go on after an error.
    """
    schema.register()
    full = os.environ.get(FULL) == "1"
    ours = () if full else (RealDamageError, HydraException, OmegaConfBaseException)
    errors: list[Exception] = []
    started = False

    def guarded(config: Any) -> Any:
        nonlocal started
        started = True
        if not full:  # processes that the task starts (ddp) print errors their own way
            os.environ.pop(FULL, None)
        try:
            _refuse_added_keys(config, command)
            return task(config)
        except ours as error:
            # Raised here, Hydra would first print "Error executing job with overrides".
            errors.append(error)
            _into_log_file(f"error: {error}")
            with suppress(OSError):  # Hydra made the folder; it stays if anything is in it
                Path(HydraConfig.get().runtime.output_dir).rmdir()
            return None
        finally:
            os.environ[FULL] = "1"

    # Hydra names the job, and its log file, after the module of the task.
    guarded.__module__ = f"realdamage.{command}"
    # Without it Hydra prints and exits by itself, and no hint could be added.
    os.environ[FULL] = "1"
    code, message = 0, ""
    try:
        folder = str(config_folder())
        try:
            hydra.main(version_base="1.3", config_path=folder, config_name=command)(guarded)()
        except Exception:
            if not errors:
                raise  # else a sweeper has given up after too many of them
        if errors:
            raise errors[0]
    except KeyboardInterrupt as stop:
        code = getattr(stop, "exit_code", 130)
        message = f"stopped; {str(stop) or 'what was finished is kept'}"
    except ours as error:
        code = getattr(error, "exit_code", ConfigError.exit_code)
        known = isinstance(error, RealDamageError)
        message = f"error: {error if known else explain(error, command)}"
    except OSError as error:
        if full or started or not error.filename:
            raise
        # Hydra makes the run's folder before the task starts.
        code = RealDamageError.exit_code
        why = f"{error.filename}: cannot be written ({error.strerror})"
        message = f"error: {why}. Choose another folder with paths.out=…"
    finally:
        if not full:
            os.environ.pop(FULL, None)
    if message:
        print(message, file=sys.stderr)
        sys.exit(code)


def _into_log_file(message: str) -> None:
    """Adds a line to the run's log file, if the run has begun one."""
    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_file():
            handler.handle(record)


def explain(error: Exception, command: str) -> str:
    """The near match of a misspelt key or option; else Hydra's own message without its inner
    names."""
    causes = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    text = "\n".join(dict.fromkeys(str(cause).strip() for cause in causes))
    if hint := _wrong_option(text):
        return hint
    full_key = re.search(r"full_key: (?P<key>\S+)", text)
    if full_key and re.search(r"Key '.*' not in '", text):
        return _near_key(full_key["key"], command)
    value = re.match(r"Error merging override (?P<override>.*)\n", text)
    if value:
        text = f"{value['override']}: {text[value.end() :]}"
    return "\n".join(line for line in text.splitlines() if not _INNER.match(line))


# Hydra's inner names, and empty lines.
_INNER = re.compile(r"\s*(?:$|(?:full_key|reference_type|object_type)\b)")


def _wrong_option(text: str) -> str:
    """For `+experiment=refrence`: Hydra lists the options, this names the near one."""
    wanted = re.search(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]+)'", text)
    listed = re.search(r"Available options in '[^']*':\n(?P<options>(?:\s+\S+\n?)+)", text)
    if not wanted or not listed:
        return ""
    # Hydra prints its search path next.
    options = listed["options"].partition("Config search path:")[0].split()
    group, option = wanted["group"], wanted["option"]
    if option == "optuna":
        return f'{group}={option} is not installed: pip install "realdamage[sweep]"'
    return f"{group}={option}: no such option; {_near_or_all(f'{group}=', option, options)}"


def _refuse_added_keys(config: DictConfig, command: str) -> None:
    """Hydra takes `+epochs=3`, but nothing would read it. Raises ConfigError."""
    for key in _added_keys(config):
        raise ConfigError(_near_key(key, command))


def _added_keys(node: DictConfig, above: str = "") -> Iterator[str]:
    """Keys that are not in the schema of their group."""
    group = node._metadata.object_type
    known = {each.name for each in fields(group)} if is_dataclass(group) else set(node)
    for key in node:
        if key not in known:
            yield above + str(key)
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _added_keys(child, above + str(key) + ".")


def _near_key(full_key: str, command: str) -> str:
    """For `model.lrr`: that there is no such key, and the near one of the command's schema."""
    node: Any = OmegaConf.structured(schema.COMMANDS[command])
    *parents, key = full_key.split(".")
    if command == "train" and key in KNOWN_ELSEWHERE:
        return f"{full_key}: no such key; {KNOWN_ELSEWHERE[key]}"
    for parent in parents:
        entry = getattr(node._metadata, "element_type", None)
        entry = next((part for part in get_args(entry) if is_dataclass(part)), entry)  # X | None
        if is_dataclass(entry) and parent not in node:  # a user's own name, such as a generator's
            node = OmegaConf.structured(entry)
        elif OmegaConf.is_dict(node) and parent in node:
            node = OmegaConf.select(node, parent)
        else:
            return f"{full_key}: no such key"
    prefix = "".join(f"{parent}." for parent in parents)
    return f"{full_key}: no such key; {_near_or_all(prefix, key, [str(name) for name in node])}"


def _near_or_all(prefix: str, word: str, choices: list[str]) -> str:
    if near := near_match(word, choices, cutoff=0.5):
        return f"did you mean {prefix}{near}?"
    return f"allowed there: {', '.join(sorted(choices)) or 'nothing'}"
