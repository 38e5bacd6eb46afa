"""Stages recorded one by one, held against the file that DVC itself writes."""

import os
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.fs import localfs
from dvc.utils.serialize import dumps_yaml
from flow_project import ROOT, STAGES, run, turn
from ruamel.yaml import YAML

from flows import dvc

SHARED = re.compile(r" [&*]id\d")


def lock(stages: Mapping[str, Any], **more: Any) -> str:
    text: str = dumps_yaml({"schema": "2.0", "stages": dict(stages), **more})
    return text


def real() -> dict[str, Any]:
    """The project's own records."""
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    stages: dict[str, Any] = YAML(typ="safe").load(text)["stages"]
    return stages


def test_every_stage_of_the_project_is_replaced_as_dvc_would() -> None:
    stages = real()
    whole, alone = lock(stages), {name: lock({name: stage}) for name, stage in stages.items()}
    simple = [name for name in stages if not SHARED.search(alone[name])]
    assert len(simple) > len(stages) // 2
    for name in simple[::9]:  # DVC takes a second for each
        changed = {"cmd": "python -m other", "params": {"params.yaml": {"a": [1, 2.5, "x"], "b": None}}}
        assert dvc.replaced(whole, lock({name: changed})) == lock({**stages, name: changed})
        assert dvc.replaced(whole, alone[name]) == whole


def test_a_new_stage_comes_last() -> None:
    stages = {"a": {"cmd": "x"}, "ab": {"cmd": "y", "deps": [{"path": "a:"}]}}
    new = {"b@1": {"cmd": "z"}}
    assert dvc.replaced(lock(stages), lock(new)) == lock({**stages, **new})


@pytest.mark.parametrize(
    "whole",
    [
        "",
        lock({}),
        lock({"a": {"cmd": "x"}}, datasets=[]),
        lock({"a": {"cmd": "x"}}).rstrip(),
        "# by hand\n" + lock({"a": {"cmd": "x"}}),
    ],
    ids=["empty", "no stages", "more than stages", "cut", "another head"],
)
def test_what_is_not_simple_is_left_to_dvc(whole: str) -> None:
    assert dvc.replaced(whole, lock({"a": {"cmd": "y"}})) is None


def test_values_that_another_stage_names_are_left_to_dvc() -> None:
    twice = [1, 2]
    shared = {"cmd": "x", "params": {"p": twice, "q": twice}}
    plain = {"cmd": "x"}
    assert SHARED.search(lock({"a": shared}))
    assert dvc.replaced(lock({"a": plain}), lock({"a": shared})) is None
    assert dvc.replaced(lock({"a": shared}), lock({"a": plain})) == lock({"a": plain})
    assert dvc.replaced(lock({"a": {"p": twice}, "b": {"p": twice}}), lock({"a": plain})) is None
    assert dvc.replaced(lock({"b": shared, "a": plain}), lock({"a": {"cmd": "y"}})) == lock(
        {"b": shared, "a": {"cmd": "y"}}
    )


def test_what_is_written_has_no_value_that_is_named_again() -> None:
    twice = [1, {"x": 2}]
    shared = OrderedDict(a={"p": twice, "q": (twice, None, 1.5)})
    assert dvc._apart(shared) == {"a": {"p": twice, "q": [twice, None, 1.5]}}
    assert not SHARED.search(lock(dvc._apart(shared)))


def test_each_record_is_read_by_itself_as_dvc_reads_it() -> None:
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    assert dict(dvc.Records(text.removeprefix(dvc.HEAD))) == real()


@pytest.mark.parametrize(
    "rest",
    [
        "",
        lock({}).removeprefix(dvc.HEAD),
        lock({"a": {"cmd": "x"}}, datasets=[]).removeprefix(dvc.HEAD),
        "  'a b':\n    cmd: x\n",
        "  a: {cmd: x}\n",
        "  a:\n    cmd: x\n  a:\n    cmd: y\n",
        "  a:\n    cmd: x\n    p: &id001\n    - 1\n  b:\n    cmd: x\n    q: *id001\n",
    ],
    ids=["empty", "no stages", "more than stages", "quoted", "in one line", "twice", "named elsewhere"],
)
def test_records_that_are_not_simple_are_refused(rest: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dvc.Records(rest)


def test_a_damaged_record_is_dvcs_own_error(fresh: Path) -> None:
    run(fresh, sys.executable, "-m", "flows.dvc", "repro", "-q")
    path = fresh / "dvc.lock"
    text = path.read_text(encoding="utf-8")
    assert "    cmd: " in text
    path.write_text(text.replace("    cmd: ", "    command: "), encoding="utf-8")
    refused = subprocess.run(
        [sys.executable, "-m", "flows.dvc", "repro", "alone"],
        cwd=fresh, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert refused.returncode and "dvc.lock" in refused.stderr


def test_a_run_leaves_the_lock_that_dvc_leaves(fresh: Path, tmp_path: Path) -> None:
    left = {}
    for module in ("dvc", "flows.dvc"):
        project = Path(shutil.copytree(fresh, tmp_path / module))
        run(project, sys.executable, "-m", module, "repro", "-q")
        first = timeless(project)
        turn(project, row__left=2, alone=3)
        run(project, sys.executable, "-m", module, "repro", "-q", "row@left", "alone")
        left[module] = first, timeless(project)
        said = run(project, "dvc", "status").stdout
        assert "join" in said and "row@left" not in said and "alone" not in said
    assert left["flows.dvc"] == left["dvc"]
    first, then = left["dvc"]
    assert first.count("cmd:") == len(STAGES) and first != then


def timeless(project: Path) -> str:
    """The lock file but for the digests and sizes of events, which hold times."""
    text = (project / "dvc.lock").read_text(encoding="utf-8")
    return re.sub(r"(path: out/events/.*\n.*\n) +md5: .*\n +size: .*", r"\1", text)


@pytest.mark.parametrize(
    "keys",
    [
        ["cost.stages", "invert.attacks.ppa", "invert.identities"],
        ["prepare.rows.faces.transform.size", "finetune.rows.none", "invert.attacks.ppa.betas.0"],
        ["cost.of_nobody", "book"],
        ["boo*"],
    ],
)
def test_parameters_are_those_that_dvc_reads(keys: list[str]) -> None:
    path = str(ROOT / "params.yaml")
    found = dvc.parameters(localfs, path, keys, flatten=True)
    # Not by the name of DVC's module, where `dvc.replace` may have been at work in this process.
    assert found == dvc._parameters_by_dvc(localfs, path, keys, flatten=True) and found
    assert list(found) == [key for key in keys if key in found]


def test_parameters_that_were_edited_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for value in (1, 22):
        path.write_text(f"a: {{b: {value}}}\n")
        found = dvc.parameters(localfs, str(path), ["a"], flatten=True)
        assert found == {"a": {"b": value}}
        found["a"]["b"] = 0  # what a caller does with it is its own
        assert dvc.parameters(localfs, str(path), ["a.b"], flatten=True) == {"a.b": value}
