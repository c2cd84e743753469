"""The console scripts: what they say when they cannot even begin."""

from __future__ import annotations

import importlib

import pytest

from realdamage.commands import entry_points


def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(SystemExit) as stopped:
        entry_points.train()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
