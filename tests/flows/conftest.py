"""Fixtures of the flow's tests: tiny real DVC projects, and one real Prefect server for all of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import flow_project
import flow_services
import pytest
from flow_prefect import Server

from flows import server as servers


@pytest.fixture(scope="session")
def _fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flow_project.make(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture(scope="session")
def _done(_fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("done") / "project"
    shutil.copytree(_fresh, project)
    flow_project.run(project, "dvc", "repro", "-q")
    flow_project.commit(project)
    assert set(flow_project.spans(project)) == set(flow_project.STAGES)
    return project


@pytest.fixture
def fresh(_fresh: Path, tmp_path: Path) -> Path:
    """A project of which nothing has run."""
    return Path(shutil.copytree(_fresh, tmp_path / "project"))


@pytest.fixture
def done(_done: Path, tmp_path: Path) -> Path:
    """A project that is up to date, and committed."""
    return Path(shutil.copytree(_done, tmp_path / "project"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server as ``make ui`` starts it."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        with servers.started(home) as api:
            yield Server(api, home)


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """A folder, of this module alone, for which `make services` has started its servers.

    That it is ended at last is a test, too.
    """
    flow_services.installed()
    with flow_services.folder() as made:
        (made / "dvc.yaml").write_text("stages: {}\n")
        flow_services.services(made, "start")
        yield made
        flow_services.stopped(made)
