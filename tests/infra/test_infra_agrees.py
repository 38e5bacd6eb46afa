"""What several files of `infra/` say, they say alike, and nothing in them is open to others."""

import re
from importlib.metadata import version
from typing import Any

import pytest
from infra_files import INFRA, ROOT, documents, variables

from tasks.engine import cluster

KEPT = variables("ray.env")
SECRETS = ("POSTGRES_PASSWORD", "S3_SECRET", "RAY_AUTH_TOKEN")


def services() -> dict[str, Any]:
    found: dict[str, Any] = documents("compose.yaml")[0]["services"]
    return found


def containers() -> dict[str, Any]:
    """Every container of the manifests by its place."""
    (ray,) = documents("k8s/raycluster.yaml")
    (worker,) = documents("k8s/prefect-worker.yaml")
    groups = {"head": ray["spec"]["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in ray["spec"]["workerGroupSpecs"]}
    templates = {name: group["template"] for name, group in groups.items()}
    templates["worker"] = worker["spec"]["template"]
    return {name: template["spec"]["containers"][0] for name, template in templates.items()}


def test_every_node_and_driver_of_ray_has_the_same_patience() -> None:
    assert cluster.PATIENCE == KEPT
    for name in ("ray-head", "ray-worker", "worker"):
        assert services()[name]["env_file"] == ["ray.env"]
    for name, container in containers().items():
        said = {one["name"]: one.get("value") for one in container["env"]}
        assert {key: said.get(key) for key in KEPT} == KEPT, name
    (launched,) = documents("ray-cluster.yaml")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert ". infra/ray.env" in launched[key][-1]


def test_ray_is_the_version_that_is_installed() -> None:
    (ray,) = documents("k8s/raycluster.yaml")
    assert ray["spec"]["rayVersion"] == version("ray")


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert len(published) == 4 and all(port.startswith("127.0.0.1:") for port in published)


def test_every_variable_is_in_the_example_and_no_secret_has_a_value() -> None:
    text = (INFRA / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    example = variables("example.env")
    assert asked == set(example)
    assert [example[name] for name in SECRETS] == ["", "", ""]
    for name in SECRETS:  # none starts with an empty one
        assert f"${{{name}:?" in text
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert defaults == {name: value for name, value in example.items() if name not in SECRETS}


def test_no_command_line_holds_a_secret() -> None:
    for name, service in services().items():
        command = " ".join(service.get("command", []))
        assert not [secret for secret in SECRETS if secret in command], name


@pytest.mark.parametrize("name", ["postgres", "s3", "mlflow", "prefect", "ray-head", "worker"])
def test_what_others_wait_for_says_whether_it_is_well(name: str) -> None:
    assert services()[name]["healthcheck"]["test"][0] == "CMD"


def test_shared_memory_holds_rays_objects() -> None:
    sizes = {"256mb": 256e6, "${WORKER_SHM:-1gb}": 1e9}
    for name in ("ray-head", "ray-worker", "worker"):
        service = services()[name]
        store = re.search(r"--object-store-memory=(\d+)", " ".join(service["command"]))
        assert store and int(store[1]) < sizes[service["shm_size"]]


def test_mlflow_takes_the_name_by_which_compose_calls_it() -> None:
    hosts = services()["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "mlflow:*" in hosts and "*" not in hosts
    assert services()["worker"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_what_is_copied_into_the_image_is_there() -> None:
    for names in re.findall(r"^COPY (?!--)(.*) \./$", (INFRA / "Dockerfile").read_text(), re.M):
        assert all((ROOT / name).is_file() for name in names.split())
