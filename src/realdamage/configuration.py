"""Runs a Hydra command as this project's users meet it: configs found, misspellings explained, errors without a stack
trace."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from realdamage import schema
from realdamage.inference.errors import ConfigError, RealDamageError


def config_folder() -> Path:
    """The repository's `configs`, else those inside the installed package (an editable install keeps to the former,
    which would go stale as a copy)."""
    in_repository = Path(__file__).resolve().parents[2] / "configs"
    if (in_repository / "train.yaml").is_file():
        return in_repository
    return Path(str(files("realdamage") / "configs"))


def compose(command: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The configuration that `command` ("train", …) would run with; for libraries and tests. Raises ConfigError."""
    schema.register()
    running = GlobalHydra.instance()
    outer, running.hydra = running.hydra, None  # this may be called inside another Hydra command
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra.compose(command, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, command)) from error
    finally:
        running.hydra = outer


def run(command: str, task: Callable[[Any], None]) -> None:
    """Runs `task` with the configuration that the command line asks for, and exits as the design says: 2 for a
    configuration that is off, the error's own code for errors of ours, a stack trace for faults of the program (and
    for all with HYDRA_FULL_ERROR=1)."""
    schema.register()
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def task_in_users_environment(config: Any) -> None:
        # Processes that the task starts (ddp) decide for themselves how to tell an error.
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        try:
            task(config)
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    # Hydra names the job, and its log file, after the module of the task.
    task_in_users_environment.__module__ = f"realdamage.{command}"
    # Without it Hydra prints and exits by itself, and no hint could be added.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        decorate = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)
        decorate(task_in_users_environment)()
    except RealDamageError as error:
        if full:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        print(f"error: {explain(error, command)}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    except KeyboardInterrupt:
        if full:
            raise
        print("stopped; what was finished is kept", file=sys.stderr)
        sys.exit(130)
    finally:
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries and lists, all references resolved."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return cast(dict[str, Any], resolved)


def explain(error: Exception, command: str) -> str:
    """Hydra's own message, with the near match of a misspelt key or option at its end."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
        causes.append(cause)
    text = "\n".join(dict.fromkeys(str(cause).strip() for cause in causes))
    hint = _option_hint(text) or _key_hint(text, command)
    return f"{text}\n{hint}" if hint else text


def _option_hint(text: str) -> str:
    """For `+experiment=refrence`: Hydra lists the options, we name the near one."""
    wanted = re.search(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]+)'", text)
    listed = re.search(r"Available options in '[^']*':\n(?P<options>(?:\s+\S+\n?)+)", text)
    if not wanted or not listed:
        return ""
    return _did_you_mean(wanted["group"] + "=", wanted["option"], listed["options"].split())


def _key_hint(text: str, command: str) -> str:
    """For `model.lrr=1`: the near key among all that the command's schema has."""
    full_key = re.search(r"full_key: (?P<key>\S+)", text) or re.search(r"Could not override '(?P<key>[^']+)'", text)
    if not full_key:
        return ""
    node = OmegaConf.structured(getattr(schema, f"{command.capitalize()}Config"))
    *parents, key = full_key["key"].split(".")
    for parent in parents:
        entry = getattr(node._metadata, "element_type", None)
        entry = next((part for part in get_args(entry) if is_dataclass(part)), entry)  # X | None
        if is_dataclass(entry) and parent not in node:  # a name of the user's own, such as a generator's
            node = OmegaConf.structured(entry)
            continue
        node = OmegaConf.select(node, parent) if OmegaConf.is_dict(node) and parent in node else None
        if node is None:
            return ""
    prefix = "".join(f"{parent}." for parent in parents)
    return _did_you_mean(prefix, key, [str(name) for name in node])


def _did_you_mean(prefix: str, word: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {prefix}{near[0]} ?"
    return f"Allowed there: {', '.join(sorted(choices))}" if choices else ""
