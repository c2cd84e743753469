"""What a training run needs is looked for before it costs anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from realdamage.errors import ConfigError
from realdamage.training.start import check_photos

TinyConfig = Callable[..., DictConfig]


def test_a_folder_that_is_not_there_is_an_error_unless_a_recipe_makes_it(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    missing = f"data.root={tmp_path}/nope"
    with pytest.raises(ConfigError, match=r"data\.root=.*/nope: no such file or folder"):
        check_photos(tiny_config(tmp_path, missing))
    check_photos(tiny_config(tmp_path, missing, "data.recipe=quickstart"))
    check_photos(tiny_config(tmp_path))
