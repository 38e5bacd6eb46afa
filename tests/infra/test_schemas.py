"""Each file of `infra/` against a validator that runs offline, and each validator against a spoilt file."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from infra_files import INFRA, documents, tool

SCHEMA = json.loads(Path(__file__).with_name("raycluster.schema.json").read_text())


def compose(path: Path) -> tuple[int, str]:
    return tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def kubernetes(path: Path) -> tuple[int, str]:
    return tool("kubernetes-validate", "--strict", path)


def spoilt(path: Path, old: str, new: str, to: Path) -> Path:
    """A copy with one passage changed, which the file has to hold."""
    text = path.read_text()
    assert old in text
    copied = to / path.name
    copied.write_text(text.replace(old, new, 1))
    return copied


def test_compose_follows_its_specification(tmp_path: Path) -> None:
    code, said = compose(INFRA / "compose.yaml")
    assert code == 0, said
    code, said = compose(spoilt(INFRA / "compose.yaml", "healthcheck:", "health_check:", tmp_path))
    assert code != 0 and "health_check" in said


def test_the_image_is_built_as_the_linter_wants(tmp_path: Path) -> None:
    code, said = tool("hadolint", INFRA / "Dockerfile")
    assert code == 0 and not said, said
    code, said = tool("hadolint", spoilt(INFRA / "Dockerfile", "--no-install-recommends ", "", tmp_path))
    assert code != 0 and "DL3015" in said


@pytest.mark.parametrize("name", ["project.yaml", "prefect-worker.yaml"])
def test_manifests_follow_kubernetes(name: str, tmp_path: Path) -> None:
    code, said = kubernetes(INFRA / "k8s" / name)
    assert code == 0, said
    wrong = spoilt(INFRA / "k8s" / name, "spec:\n", "spec:\n  replicas_: 1\n", tmp_path)
    code, said = kubernetes(wrong)
    assert code != 0 and "replicas_" in said


def pods(cluster: Any) -> list[Any]:
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_ray_cluster_follows_the_schema_and_its_pods_kubernetes(tmp_path: Path) -> None:
    (cluster,) = documents("k8s/raycluster.yaml")
    jsonschema.validate(cluster, SCHEMA)
    for spec in pods(cluster):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": spec}
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
        code, said = kubernetes(tmp_path / "pod.yaml")
        assert code == 0, said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(workerGroupSpec=[]),
        lambda spec: spec["authOptions"].update(mode="disabled"),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["workerGroupSpecs"][0].update(replicas="2"),
        lambda spec: spec.pop("rayVersion"),
    ],
)
def test_a_wrong_ray_cluster_is_refused(spoil: Any) -> None:
    (cluster,) = copy.deepcopy(documents("k8s/raycluster.yaml"))
    spoil(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, SCHEMA)


def launched(config: Any) -> tuple[int, str]:
    """In a process of its own: Ray keeps the settings that it meets when it is first imported."""
    program = (
        "import json, sys\n"
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        "validate_config(prepare_config(json.load(sys.stdin)))\n"
    )
    command, text = [sys.executable, "-c", program], json.dumps(config)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_rays_launcher_takes_its_file() -> None:
    (config,) = documents("ray-cluster.yaml")
    code, said = launched(config)
    assert code == 0, said
    code, said = launched({**config, "worker_ip": []})
    assert code != 0 and "worker_ip" in said
