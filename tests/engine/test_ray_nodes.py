"""More than one Ray node, and what becomes of a grid of real shadow heads when one of them dies."""

import os
import secrets
from pathlib import Path

import engine_nodes
import pytest
from engine_processes import HERE, ROOT, Launch

from tasks.engine import fanout


def contents(store: Path) -> dict[str, bytes]:
    """Every file that cells left, by its place."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.glob("*/files/*"))}


def test_a_thousand_shadows_outlive_a_node(
    tmp_path: Path, start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = engine_nodes.cells(tmp_path / "model")
    assert len(work) * engine_nodes.MODELS == 1024
    fanout.run(work, engine_nodes.place(tmp_path / "alone"))
    for key, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
    }.items():
        monkeypatch.setenv(key, value)
    process = start(engine_nodes.__file__, tmp_path)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert 3 <= int((tmp_path / "done").read_text()) < len(work)
    undisturbed = contents(tmp_path / "alone")
    assert len(undisturbed) == len(work) and contents(tmp_path / "shared") == undisturbed
