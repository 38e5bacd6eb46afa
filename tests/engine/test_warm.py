"""Stages forked from a process that has torch: real processes, real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_processes import ROOT, Launch, alive, wait_for

PROBE = """
import json, os, signal, sys, time
loaded = "torch" in sys.modules
ours = sorted(name for name in sys.modules if name.startswith("tasks.engine"))
from pathlib import Path
what = sys.argv[1]
if what == "tell":
    facts = [sys.argv, os.getcwd(), os.environ.get("COLOUR"), "MIPRIV_WARM" in os.environ, loaded, ours]
    print(json.dumps(facts), flush=True)
    print("aside", file=sys.stderr)
    raise SystemExit(3)
if what == "words":
    raise SystemExit("no such thing")
if what == "end":
    import atexit, tempfile, threading
    atexit.register(print, "at exit")
    folder = tempfile.TemporaryDirectory()
    Path("folder").write_text(folder.name)
    threading.Thread(target=lambda: (time.sleep(1.0), print("by a thread"))).start()
    print("said", end="")
    raise SystemExit(4)
if what == "raise":
    raise ValueError("broken")
if what == "wait":
    def told(*_):
        Path("told").touch()
        raise SystemExit(143)
    signal.signal(signal.SIGTERM, told)
    Path("pid.part").write_text(str(os.getpid()))
    os.rename("pid.part", "pid")
    time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package `tasks` with the module at test and a stage that tells about itself."""
    package = tmp_path / "project" / "tasks"
    (package / "engine").mkdir(parents=True)
    for name in ("__init__.py", "engine/__init__.py", "engine/warm.py", "engine/forked.py"):
        shutil.copy(ROOT / "tasks" / name, package / name)
    (package / "probe.py").write_text(PROBE)
    return package.parent


@pytest.fixture
def parent(project: Path, start: Launch, tmp_path: Path) -> Iterator[dict[str, str]]:
    path = tmp_path / "s"
    process = start("-m", "tasks.engine.warm", path, "colorsys", cwd=project, path=project)
    wait_for(lambda: path.exists() or process.poll() is not None, seconds=120)
    assert process.poll() is None, process.communicate()
    yield {"MIPRIV_WARM": str(path)}
    assert process.poll() is None, "it outlives every stage"


def probe(project: Path, what: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tasks.probe", what]
    whole = {**os.environ, **env}
    return subprocess.run(command, cwd=project, env=whole, capture_output=True, text=True, check=False)


def test_a_stage_is_what_it_would_be_by_itself_but_for_torch(project: Path, parent: dict[str, str]) -> None:
    alone, forked = probe(project, "tell", COLOUR="red"), probe(project, "tell", COLOUR="red", **parent)
    assert alone.returncode == forked.returncode == 3
    assert (alone.stderr, forked.stderr) == ("aside\n", "aside\n")
    own, other = json.loads(alone.stdout), json.loads(forked.stdout)
    assert own[0][1:] == other[0][1:] == ["tell"]
    assert own[1:4] == other[1:4] == [str(project), "red", False]
    assert (own[4], other[4]) == (False, True)
    assert other[5] == [], "this project's modules are read anew"


def test_another_program_runs_so_and_its_stages_find_the_parent(
    project: Path, parent: dict[str, str]
) -> None:
    package = project / "other"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "program.py").write_text(
        "import os, subprocess, sys\n"
        "print(sys.argv[1:], 'colorsys' in sys.modules, flush=True)\n"
        "raise SystemExit(subprocess.run([sys.executable, '-m', 'tasks.probe', 'tell']).returncode)\n"
    )
    for env, loaded in (({}, False), (parent, True)):
        done = subprocess.run(
            [sys.executable, "-m", "tasks.engine.forked", "other.program", "--flag", "x"],
            cwd=project, env={**os.environ, **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout.splitlines()
        assert (done.returncode, said[0]) == (3, f"['--flag', 'x'] {loaded}")
        assert json.loads(said[1])[4] is loaded


def test_a_stage_runs_what_lies_there_when_it_starts(project: Path, parent: dict[str, str]) -> None:
    assert probe(project, "words", **parent).returncode == 1
    (project / "tasks" / "probe.py").write_text("raise SystemExit(7)\n")
    assert probe(project, "words", **parent).returncode == 7


@pytest.mark.parametrize(("what", "said"), [("words", "no such thing"), ("raise", "ValueError: broken")])
def test_errors_are_told_as_the_interpreter_would(
    project: Path, parent: dict[str, str], what: str, said: str
) -> None:
    done = probe(project, what, **parent)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, said)


def test_a_stage_ends_as_the_interpreter_would(project: Path, parent: dict[str, str]) -> None:
    for env in ({}, parent):
        done = probe(project, "end", **env)
        assert (done.returncode, done.stdout) == (4, "saidby a thread\nat exit\n")
        assert not Path((project / "folder").read_text()).exists()


def waiting(project: Path, start: Launch, env: dict[str, str]) -> "tuple[subprocess.Popen[str], int]":
    process = start("-m", "tasks.probe", "wait", cwd=project, path=project, env=env)
    wait_for((project / "pid").exists, seconds=120)
    pid = int((project / "pid").read_text())
    assert pid != process.pid and alive(pid)
    return process, pid


def test_a_signal_is_passed_on(project: Path, parent: dict[str, str], start: Launch) -> None:
    process, pid = waiting(project, start, parent)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert (project / "told").exists() and not alive(pid)


def test_a_stage_ends_with_the_process_that_handed_it_over(
    project: Path, parent: dict[str, str], start: Launch
) -> None:
    process, pid = waiting(project, start, parent)
    process.kill()
    wait_for(lambda: not alive(pid), seconds=120)


def test_a_killed_stage_ends_the_process_that_waits_for_it(
    project: Path, parent: dict[str, str], start: Launch
) -> None:
    process, pid = waiting(project, start, parent)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL


def test_without_an_answer_a_stage_starts_by_itself(project: Path, tmp_path: Path) -> None:
    done = probe(project, "tell", MIPRIV_WARM=str(tmp_path / "nobody"))
    assert done.returncode == 3 and json.loads(done.stdout)[4] is False
    assert done.stderr.startswith("MIPRIV_WARM: No such file or directory: ")
