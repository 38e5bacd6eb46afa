"""A scheduled deployment end to end: servers on PostgreSQL, artifacts on S3, cells on two Ray nodes.

The commands are those at the head of `prefect.yaml`, with that very file, but for how often it runs.
"""

import secrets
from pathlib import Path

import flow_checkout
import pytest
from flow_deployed import at_work, completed, deploy, deployed_often, nodes, runs_of
from flow_prefect import Server
from flow_project import environment, wait
from flow_services import variables


@pytest.mark.timeout(600)
def test_a_scheduled_run_on_postgresql_s3_and_two_nodes(served: Path, tmp_path: Path) -> None:
    project, known, marks = tmp_path / "project", variables(served), tmp_path / "marks"
    flow_checkout.make(project, seeds=2, seconds=4)
    deployed_often(project)
    marks.mkdir()
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    server = Server(known["PREFECT_API_URL"], tmp_path)
    with nodes(tmp_path, access) as ray:
        env = environment(
            **known,
            **access,
            RAY_ADDRESS=ray["address"],
            MIPRIV_MARKS=str(marks),
            PREFECT_HOME=str(tmp_path / "prefect"),
            PREFECT_WORKER_QUERY_SECONDS="2",
            PYTHONPATH=str(project),
            PWD=str(project),  # as a shell would have it, and prefect.yaml asks for it
        )
        del env["MIPRIV_PUBLISH"]
        deploy(project, env)
        with at_work(project, tmp_path / "worker.log", env):
            wait(lambda: len(completed(server)) >= 2, 400)
    first, second = completed(server)[:2]
    assert first == "2 of 2 stages computed"
    assert second == "nothing to do: all 2 stages are up to date"

    begun = flow_checkout.computed(marks)
    assert {name: len(nodes) for name, nodes in begun.items()} == {
        f"{kind}-{seed}": 1 for kind in ("plain", "other") for seed in (0, 1)
    }
    assert {node for nodes in begun.values() for node in nodes} == set(ray["raylets"])
    assert flow_checkout.sums(project) == flow_checkout.expected(2)
    found = runs_of(known["MLFLOW_TRACKING_URI"])
    assert len(found) == 6 and all(one["info"]["status"] == "FINISHED" for one in found)  # 2 stages, 4 cells
    bucket = served / ".services/s3/buckets/mipriv/mlflow"
    wait(lambda: len(list(bucket.rglob("sum.txt"))) == 2)  # one artifact a stage
