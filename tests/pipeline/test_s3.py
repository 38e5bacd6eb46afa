"""One bucket behind everything: the source's images, DVC's remote and MLflow's artifacts."""

import hashlib
import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from flows import scale
from mipriv.data.sources import Record
from mipriv.errors import InputError
from tasks.engine import params
from tasks.engine.progress import Progress
from tasks.engine.publisher import Publisher
from tasks.prepare import Preparation, Row
from tests.bucket import KEY, SECRET, Answer, Proxy, environment, serve
from tests.pipeline.conftest import ROOT, edit, ran, run

FACES = "s3://mipriv/faces"
SPLIT = {"public": 4, "private": None, "train": 2, "validation": 1, "test": 2}
SPLIT |= {"public_validation": 1, "seed": 0}
DATA, EVENTS = "out/prepare/faces", "out/events/prepare/faces.jsonl"
PREPARE = [sys.executable, "-m", "tasks.prepare", "--row", "faces", "--out", DATA, "--events", EVENTS]


class World:
    """A server with the bucket ``mipriv``, see `fill`, and a project that reads it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.buckets, self.project, self.port = folder / "buckets", folder / "project", port
        self.env = {**environment(port), "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://mipriv/mlflow"}
        self.said = ""

    def run(
        self, *command: object, project: Path | None = None, code: int | None = 0, **env: str
    ) -> CompletedProcess[str]:
        """A command in a project; whatever it says is kept."""
        done = run(project or self.project, *command, code=code, **{**self.env, **env})
        self.said += done.stdout + done.stderr
        return done

    def reads(self, project: Path, source: str, **knobs: str) -> None:
        """Let a project read another source."""

        def change(values: Any) -> None:
            values["prepare"]["rows"]["faces"] |= {"source": source, "knobs": knobs, "split": SPLIT}

        edit(project, change)

    def another(self, folder: Path) -> Path:
        """A second clone of the project, with nothing but what git and the bucket hold."""
        self.run("git", "clone", "-q", self.project, folder)
        self.run("dvc", "remote", "add", "--local", "-d", "bucket", "s3://mipriv/dvc", project=folder)
        return folder


def fill(bucket: Path) -> None:
    """Ten people, five images each, in ``faces/``; beside them what is short in some way."""
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (50, 20, 16), np.uint8)
    ages = "".join(f"p{n // 5}/{n % 5}.png,{n}\n" for n in range(50))
    for place in ("tables", "arrays", *(f"faces/p{p}" for p in range(10))):
        (bucket / place).mkdir(parents=True)
    for n, face in enumerate(pixels):
        Image.fromarray(face).save(bucket / f"faces/p{n // 5}/{n % 5}.png")
    (bucket / "tables/whole.csv").write_text(f"file,age\n{ages}")
    (bucket / "tables/short.csv").write_text("file,age\n")
    np.savez(bucket / "arrays/whole.npz", images=pixels, labels=np.arange(50) // 5)
    (bucket / "arrays/short.npz").write_bytes((bucket / "arrays/whole.npz").read_bytes()[:-100])
    shutil.copytree(bucket / "faces", bucket / "short")
    os.truncate(bucket / "short/p3/2.png", 200)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The project after its first run from the bucket: stages `check` and `prepare`, committed and pushed."""
    folder = tmp_path_factory.mktemp("world")
    fill(folder / "buckets" / "mipriv")
    with serve(folder) as port, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        world = World(folder, port)
        scale.prepare(ROOT, "smoke", world.project)
        (world.project / ".dvc/config.local").unlink()  # it shares a cache, which clones elsewhere do not
        world.reads(world.project, "image_folder", root=FACES)
        assert ran(world.run("dvc", "repro", "prepare@faces")) == {"check", "prepare@faces"}
        world.run("git", "add", "-A")
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        world.run("git", *identity, "commit", "-q", "-m", "faces")
        world.run("dvc", "remote", "add", "--local", "-d", "bucket", "s3://mipriv/dvc")
        world.run("dvc", "push", "check", "prepare@faces")
        yield world


@pytest.fixture
def elsewhere(world: World, tmp_path: Path) -> Path:
    """A clone in which commands may fail."""
    return world.another(tmp_path / "clone")


def test_what_is_prepared_is_what_the_bucket_holds_and_names_it(world: World) -> None:
    text = (world.project / DATA / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["source"] == {"name": "image_folder", "knobs": {"root": FACES}}
    faces = world.buckets / "mipriv/faces"
    expected = {path.relative_to(faces).as_posix(): path.read_bytes() for path in faces.rglob("*.png")}
    assert {record["path"]: record["sha256"] for record in manifest["records"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in expected.items()
    }
    assert len(expected) == 50 and "fetched" not in text


def test_a_second_clone_pulls_and_runs_nothing(world: World, elsewhere: Path) -> None:
    assert not (elsewhere / "out").exists()
    world.run("dvc", "pull", "check", "prepare@faces", project=elsewhere)
    gone = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")  # nothing is asked of the bucket
    done = world.run("dvc", "repro", "prepare@faces", project=elsewhere, **gone)
    assert ran(done) == set() and "up to date" in done.stdout
    for name in ("images.npy", "manifest.json"):
        assert (elsewhere / DATA / name).read_bytes() == (world.project / DATA / name).read_bytes()


def test_the_whole_pipeline_is_pushed_pulled_and_runs_nothing(
    world: World, copy: Path, tmp_path: Path
) -> None:
    world.run("dvc", "remote", "add", "--local", "-d", "bucket", "s3://mipriv/whole", project=copy)
    world.run("dvc", "push", project=copy)
    clone = tmp_path / "clone"
    world.run("git", "clone", "-q", copy, clone)
    world.run("dvc", "remote", "add", "--local", "-d", "bucket", "s3://mipriv/whole", project=clone)
    world.run("dvc", "pull", project=clone)
    done = world.run("dvc", "repro", project=clone)
    assert ran(done) == set() and "up to date" in done.stdout
    assert (clone / "out/evaluate/leakage.csv").read_bytes() == (
        copy / "out/evaluate/leakage.csv"
    ).read_bytes()


def test_artifacts_of_a_run_lie_in_the_bucket(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(f"sqlite:///{world.project / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mipriv"]
    (prepared,) = client.search_runs([experiment.experiment_id])
    assert prepared.info.run_name == "prepare@faces" and prepared.info.artifact_uri.startswith(
        "s3://mipriv/mlflow/"
    )
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    brought = Path(client.download_artifacts(prepared.info.run_id, "manifest.json", str(tmp_path)))
    assert brought.read_bytes() == (world.project / DATA / "manifest.json").read_bytes()
    assert prepared.data.params["row.knobs.root"] == FACES and not (world.project / "mlartifacts").exists()

    for place, said in (
        ("s3://mipriv/mlflow", ""),
        ("s3://mipriv/other", "keeps artifacts where it was made"),
    ):
        monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", place)
        capsys.readouterr()
        Publisher(world.project).publish([])
        warned = capsys.readouterr().err
        assert said in warned and bool(warned) == bool(said)


@pytest.fixture
def proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    between = Proxy(world.port)
    for name, value in environment(between.port).items():
        monkeypatch.setenv(name, value)
    yield between
    between.close()


def wanted(source: str, row: str = "faces", **knobs: str) -> Preparation:
    """What a row asks for."""
    faces = params.load(ROOT / "params.yaml")["prepare"]["rows"]["faces"]
    where = f"prepare.rows.{row}"
    return Preparation(where, params.validate(Row, {**faces, "source": source, "knobs": knobs}, where))


def test_before_any_work_a_bucket_is_listed_and_no_image_read(
    world: World, proxy: Proxy, tmp_path: Path
) -> None:
    local = wanted("image_folder", root=str(world.buckets / "mipriv/faces"))
    assert wanted("image_folder", root=FACES).records(tmp_path) == local.records(tmp_path)
    assert proxy.asked == [] and not (tmp_path / ".cells").exists()
    with pytest.raises(
        InputError, match=r"^params\.yaml: prepare\.rows\.faces\.knobs\.root: 's3://mipriv/none': holds no"
    ):
        wanted("image_folder", root="s3://mipriv/none").records(tmp_path)
    with pytest.raises(InputError, match=r"^'s3://mipriv/faces/p1/0\.png': in no class folder"):
        wanted("image_folder", root=f"{FACES}/p1").records(tmp_path)
    with pytest.raises(InputError) as refused:
        wanted("image_folder", root=f"s3://{KEY}:{SECRET}@mipriv/faces").records(tmp_path)
    assert SECRET not in str(refused.value) and KEY not in str(refused.value)


def test_a_table_beside_the_images_is_read(world: World, proxy: Proxy, tmp_path: Path) -> None:
    row = wanted("image_folder", root=FACES, attributes="s3://mipriv/tables/whole.csv")
    assert [record.attributes["age"] for record in row.records(tmp_path)] == list(range(50))
    assert proxy.asked == ["mipriv/tables/whole.csv"]
    row = wanted("image_folder", root=FACES, attributes="s3://mipriv/tables/short.csv")
    with pytest.raises(InputError, match=r"^'s3://mipriv/tables/short\.csv': no row for 'p0/0\.png'"):
        row.records(tmp_path)


def test_rows_of_one_address_share_its_copies_one_at_a_time(
    world: World, proxy: Proxy, tmp_path: Path
) -> None:
    one, two = (wanted("image_folder", row, root=FACES) for row in ("one", "two"))
    entered, seen = threading.Event(), list[Record]()

    def second() -> None:
        with Progress("two", 1) as progress, two.brought(tmp_path, ["root"], progress) as source:
            entered.set()
            seen.extend(source.records())

    thread = threading.Thread(target=second, daemon=True)
    with Progress("one", 1) as progress, one.brought(tmp_path, ["root"], progress) as source:
        thread.start()
        assert not entered.wait(1.5), "nobody may bring anew what is being read"
        records = source.records()
    thread.join(60)
    assert seen == records and len(records) == 50
    assert len(proxy.asked) == len(set(proxy.asked)) == 50
    twice = wanted("image_folder", root=FACES, attributes=FACES)  # waits for nobody, itself included
    with pytest.raises(InputError, match=f"'{FACES}'"):
        twice.records(tmp_path)


def test_arrays_come_from_a_bucket_once(world: World, proxy: Proxy, elsewhere: Path) -> None:
    uri = "s3://mipriv/arrays/whole.npz"
    assert len(wanted("arrays", file=uri).records(elsewhere)) == 50
    world.reads(elsewhere, "arrays", file=uri)
    through = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}", "MIPRIV_PUBLISH": "off"}
    done = world.run(*PREPARE, project=elsewhere, **through)
    assert f"prepare@faces  {uri}  done in" in done.stderr
    assert proxy.asked == ["mipriv/arrays/whole.npz"]  # by what is looked at before any work, and not again
    assert json.loads((elsewhere / DATA / "manifest.json").read_text())["source"]["knobs"] == {"file": uri}
    with pytest.raises(InputError, match=r"^'s3://mipriv/arrays/short\.npz': not a readable \.npz file"):
        wanted("arrays", file="s3://mipriv/arrays/short.npz").records(elsewhere)


def errors(done: CompletedProcess[str]) -> list[str]:
    """Lines with which a command refused."""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_a_bucket_that_is_not_there_is_one_line_and_costs_no_result(world: World, elsewhere: Path) -> None:
    world.run("dvc", "pull", "check", "prepare@faces", project=elsewhere)
    world.reads(elsewhere, "image_folder", root="s3://nobody/faces")
    done = world.run("dvc", "repro", "prepare@faces", project=elsewhere, code=None)
    (line,) = errors(done)
    assert done.returncode and ran(done) == {"check"}
    assert line.startswith(
        "error: params.yaml: prepare.rows.faces.knobs.root: 's3://nobody/faces': bucket does not exist"
    )
    assert (elsewhere / DATA / "manifest.json").exists()


def test_an_object_that_was_stored_truncated_is_named_by_its_address(world: World, elsewhere: Path) -> None:
    world.reads(elsewhere, "image_folder", root="s3://mipriv/short")
    (line,) = errors(world.run(*PREPARE, project=elsewhere, code=2, MIPRIV_PUBLISH="off"))
    assert line.startswith("error: 's3://mipriv/short/p3/2.png': not a readable image")


def test_an_object_that_comes_truncated_is_one_line_and_a_failed_record(
    world: World, elsewhere: Path, proxy: Proxy
) -> None:
    def alter(answer: Answer) -> None:
        if answer.key.endswith("p3/2.png"):
            answer.sent = 100

    proxy.alter = alter
    through = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}", "MIPRIV_PUBLISH": "off"}
    (line,) = errors(world.run(*PREPARE, project=elsewhere, code=2, **through))
    size = (world.buckets / "mipriv/faces/p3/2.png").stat().st_size
    expected = f"'{FACES}/p3/2.png': truncated, 100 of {size} bytes came, 3 times"
    assert line.startswith(f"error: params.yaml: prepare.rows.faces.knobs.root: {expected}")
    assert expected in (elsewhere / EVENTS).read_text()


def test_no_credential_is_left_anywhere(world: World, elsewhere: Path) -> None:
    world.run("dvc", "pull", "prepare@faces", project=elsewhere)
    shutil.copy(world.project / "mlflow.db", elsewhere)
    wrong = f"{secrets.token_hex(16)}+/"
    again = [sys.executable, "-m", "tasks.engine.publisher", "--strict", EVENTS]
    env = {"AWS_SECRET_ACCESS_KEY": wrong, "MLFLOW_EXPERIMENT_NAME": "another"}
    refused = world.run(*again, project=elsewhere, code=1, **env)
    assert refused.stderr.startswith("publisher: warning: ") and refused.stderr.count("\n") == 1
    refused = world.run(*PREPARE, project=elsewhere, code=2, AWS_SECRET_ACCESS_KEY=wrong)
    (line,) = errors(refused)
    assert line.startswith(
        f"error: params.yaml: prepare.rows.faces.knobs.root: {FACES!r}: refused by the server (Signat"
    )
    assert "publisher: 1 new of 1" in refused.stderr

    tops = (world.project, elsewhere, world.buckets)
    files = [path for top in tops for path in top.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"mlflow.db", "faces.jsonl", "manifest.json", "config.local", "dvc.lock"} <= names
    for secret in (SECRET, KEY, wrong):
        assert secret not in world.said
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
