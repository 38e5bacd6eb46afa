"""What a DVC and MLflow user expects of the finished pipeline, at smoke scale on real faces."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from tests.pipeline.conftest import edit, ran, run


def table_of(project: Path) -> list[dict[str, str]]:
    """The leakage table as written."""
    with (project / "out/evaluate/leakage.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_stage_ran_and_a_second_run_does_nothing(smoke: Path) -> None:
    again = run(smoke, "dvc", "repro")
    assert ran(again) == set() and "up to date" in again.stdout
    assert run(smoke, "dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_a_run_changes_no_tracked_file_but_the_lock(smoke: Path) -> None:
    assert run(smoke, "git", "status", "--porcelain").stdout == ""
    edit_free = run(smoke, "git", "ls-files").stdout.split()
    assert "dvc.lock" in edit_free and not [name for name in edit_free if name.startswith("out/")]


def test_dvc_shows_metrics_and_plots(smoke: Path) -> None:
    shown = json.loads(run(smoke, "dvc", "metrics", "show", "--json").stdout)
    values, joined = (shown[""]["data"][f"out/{name}/metrics.json"]["data"] for name in ("evaluate", "table"))
    assert (
        0 <= values["ppa-none"]["slim_vgg"]["accuracy@1"] <= 1
        and 0 <= values["none"]["natural accuracy"] <= 1
    )
    attacks = [values[name]["slim_vgg"]["accuracy@1"] for name in ("ppa-none", "tl_aware-none")]
    assert joined["none"]["inversion"] in attacks
    assert 0 <= joined["none"]["membership"] <= 1
    page = run(smoke, "dvc", "plots", "show", "-o", "plots").stdout
    assert "index.html" in page and "tradeoff" in (smoke / "plots" / "index.html").read_text()
    for leftover in (smoke / "plots").rglob("*"):
        assert leftover.stat().st_size > 0 or leftover.is_dir()


def test_dvc_exp_runs_only_what_a_parameter_touches(copy: Path) -> None:
    done = run(copy, "dvc", "exp", "run", "-S", "evaluate.floor_samples=60", "-n", "sixty")
    assert ran(done) == {"check", "evaluate", "report", "table", "book"}
    assert "sixty" in run(copy, "dvc", "exp", "show", "--csv").stdout


def test_figures_have_intervals_floors_and_counts(smoke: Path) -> None:
    lines = table_of(smoke)
    for line in lines:
        assert float(line["low"]) <= float(line["point"]) <= float(line["high"]), line
        assert line["n"] == "20" and line["seeds"] == "1" and line["method"]
    subjects = {(line["kind"], line["subject"]) for line in lines}
    for row in ("ppa-none", "ppa-tl_dmi-head"):
        assert {("attack", row), ("difference", row), ("floor", f"{row}, selected only")} <= subjects
    floors = {
        line["subject"]: line for line in lines if line["kind"] == "floor" and line["figure"] == "accuracy@1"
    }
    # One image for everybody is one person to the judge, and there are twenty.
    assert float(floors["mean public face"]["point"]) == 0.05
    assert float(floors["random latents of eigenfaces"]["point"]) == 0.05
    twins = {line["subject"] for line in lines if line["against"] == "ppa-none"}
    assert twins == {"ppa-tl_dmi-head"}


def test_a_row_in_chunks_of_identities_covers_everybody_once(smoke: Path) -> None:
    parts = sorted((smoke / "out/invert/ppa-none/seed-0").glob("ids-*/reconstructions.safetensors"))
    seen = [identity for part in parts for identity in load_file(part)["identities"].tolist()]
    assert len(parts) == 2 and seen == list(range(20))


def test_an_attack_that_studies_its_victim_does_so_once_and_not_again_for_another_search(copy: Path) -> None:
    left = copy / "out/invert/tl_aware-none"
    study = left / "study/seed-0/knowledge.safetensors"
    assert len(list((left / "seed-0").iterdir())) == 2 and study.exists()
    before = study.read_bytes()

    def further(values: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        values["invert"]["attacks"]["tl_aware"]["steps"] = 4  # type: ignore[assignment]

    edit(copy, further)  # type: ignore[arg-type]
    done = run(copy, "dvc", "repro", "invert@tl_aware-none")
    assert study.read_bytes() == before
    assert re.search(r"study/seed-0  kept, was done", done.stderr)
    assert re.search(r"seed-0/ids-00000  done in", done.stderr)


def test_frozen_layers_are_those_of_the_backbone_byte_for_byte(smoke: Path) -> None:
    backbone = load_file(smoke / "out/pretrain/imagenet/model/model.safetensors")
    head_only = load_file(smoke / "out/finetune/tl_dmi-head/seed-0/model.safetensors")
    full = load_file(smoke / "out/finetune/none/seed-0/model.safetensors")
    trunk = [name for name in head_only if name.startswith("trunk.")]
    assert trunk and all(head_only[name].equal(backbone[name]) for name in trunk)
    assert not all(full[name].equal(backbone[name]) for name in trunk)


def test_mlflow_holds_one_run_a_stage_and_one_child_a_cell(smoke: Path) -> None:
    client = MlflowClient(f"sqlite:///{smoke / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mipriv"]
    runs = client.search_runs([experiment.experiment_id])
    top = sorted(r.info.run_name for r in runs if "mlflow.parentRunId" not in r.data.tags)
    expected = [
        "evaluate",
        "finetune@none",
        "finetune@tl_dmi-head",
        "fisher@none",
        "invert@ppa-none",
        "invert@ppa-tl_dmi-head",
        "invert@tl_aware-none",
    ]
    expected += ["judge@slim_vgg", "pretrain@imagenet", "prior@eigenfaces", "report"]
    expected += [f"prepare@{row}" for row in ("digits", "faces", "law", "records")]
    attacked = ("affine-law", "decoder-noise", "decoder-none", "decoder-partitioning", "peel-none")
    expected += [f"reconstruct@{row}" for row in attacked]
    expected += ["evaluate_split", "report_split", "prototypes@peel-none", "design@digits"]
    expected += ["split@faces", "invert_split@ppa-faces-plain", "table", "book"]
    expected += ["split@law", "split@noise", "split@partitioning", "features@digits", "shadows@digits"]
    expected += ["shadow_victims@none", "shadow_victims@noise-cem"]
    expected += ["attributes@partitioning", "evaluate_attributes", "report_attributes"]
    expected += ["membership@lira", "membership@loss", "evaluate_membership", "report_membership"]
    assert top == sorted(expected)
    (parent,) = [r for r in runs if r.info.run_name == "invert@ppa-none"]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} >= {"best.png"}
    (evaluation,) = [r for r in runs if r.info.run_name == "evaluate"]
    assert "ppa-none/slim_vgg/accuracy_at_1" in evaluation.data.metrics
    before = len(runs)
    run(smoke, sys.executable, "-m", "tasks.engine.publisher", "--events", "out/events", "--strict")
    assert len(client.search_runs([experiment.experiment_id])) == before


def test_the_filters_of_the_experiments_note_answer(smoke: Path) -> None:
    client = MlflowClient(f"sqlite:///{smoke / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mipriv"]
    best, one, last = re.findall("``(.+?)``", experiment.tags["mlflow.note.content"])

    def names(wanted: str, *order: str) -> list[str]:
        found = client.search_runs([experiment.experiment_id], wanted, order_by=list(order))
        return [run.info.run_name for run in found]

    table = {
        (line["kind"], line["subject"], line["figure"], line["judge"]): float(line["point"])
        for line in table_of(smoke)
    }
    attacked = {"ppa-none": "none", "ppa-tl_dmi-head": "tl_dmi-head", "tl_aware-none": "none"}
    attacked |= {"ppa-faces-plain": "faces/plain"}
    natural, leaks = {}, {}
    for row, victim in attacked.items():
        for judge in ("slim_vgg", "dlib"):
            natural[f"{row} by {judge}"] = table["victim", victim, "natural accuracy", ""]
            leaks[f"{row} by {judge}"] = table["attack", row, "accuracy@1", judge]
    for least in (0.0, *natural.values()):
        kept = [row for row in natural if natural[row] >= least]
        found = names(best.replace("0.95", str(least)), "metrics.accuracy_at_1 ASC")
        assert sorted(found) == sorted(kept) and [leaks[row] for row in found] == sorted(map(leaks.get, kept))
    assert {"invert@ppa-none", "seed-0/ids-00000", "ppa-none by slim_vgg"} <= set(names(one))
    assert names(last) == ["evaluate"]


def test_the_table_is_printed_with_the_way_to_the_report(smoke: Path) -> None:
    shown = run(
        smoke,
        sys.executable,
        "-m",
        "tasks.show",
        "out/evaluate/leakage.csv",
        "--report",
        "out/report/report.html",
    )
    assert "ppa-none" in shown.stdout and str(smoke / "out/report/report.html") in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120 or str(smoke) in shown.stdout


TOY = '''"""A toy attack: the prior's mean."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from mipriv.attacks.inversion import Reconstructions


@dataclass(frozen=True)
class Toy:
    """Shows everybody the mean image, `copies` times."""

    copies: int = 1

    access: ClassVar[str] = "labels"

    def __call__(self, victim, prior, identities, *, seed, progress=None):
        """See `Inversion`."""
        z = torch.zeros(len(identities), self.copies, prior.latent_dim)
        with torch.no_grad():
            images = prior(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return Reconstructions(images, images.clone(), z, torch.zeros(z.shape[:2]), 0)
'''


READERS = {
    "evaluate",
    "report",
    "prototypes@peel-none",
    "table",
    "book",
}  # stages that read what every inversion left


def test_adding_an_attack_is_one_file_and_one_block_and_changing_it_reruns_its_rows(copy: Path) -> None:
    (copy / "mipriv/attacks/inversion/toy.py").write_text(TOY)

    def add(values: dict[str, dict[str, dict[str, object]]]) -> None:
        values["invert"]["attacks"]["toy"] = {"copies": 2}
        values["invert"]["rows"]["toy-none"] = {
            "attack": "toy",
            "victim": "none",
            "prior": "eigenfaces",
            "seeds": [0],
        }

    edit(copy, add)  # type: ignore[arg-type]
    assert ran(run(copy, "dvc", "repro")) == {"check", "invert@toy-none", *READERS}
    assert "toy-none" in (copy / "out/report/report.html").read_text()
    assert (
        "toy-none"
        in run(copy, sys.executable, "-m", "tasks.show", "out/evaluate/leakage.csv", "--report", "x").stdout
    )

    source = copy / "mipriv/attacks/inversion/toy.py"
    source.write_text(source.read_text().replace("torch.zeros(len(identities)", "torch.ones(len(identities)"))
    assert ran(run(copy, "dvc", "repro")) == {"invert@toy-none", *READERS}

    def turn(values: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        values["invert"]["attacks"]["toy"]["copies"] = 3  # type: ignore[assignment]

    edit(copy, turn)  # type: ignore[arg-type]
    assert ran(run(copy, "dvc", "repro")) == {"check", "invert@toy-none", *READERS}


def test_a_stage_that_imports_what_its_deps_do_not_name_fails(copy: Path) -> None:
    source = copy / "mipriv/attacks/inversion/ppa.py"
    source.write_text(
        source.read_text().replace("from mipriv.errors", "import mipriv.stats\nfrom mipriv.errors", 1)
    )
    done = run(copy, "dvc", "repro", "invert@ppa-none", code=None)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "invert@ppa-none" in said[0] and "mipriv/stats.py" in said[0]


def test_a_mistake_costs_nothing_and_is_one_line(copy: Path) -> None:
    before = {
        p: p.stat().st_mtime_ns
        for p in (copy / "out").rglob("*")
        if p.is_file() and p.name not in ("check.json", "rows.json") and p.parent.name != "parameters"
    }

    def break_it(values: dict[str, dict[str, object]]) -> None:
        values["finetune"]["rows"]["tl_dmi-head"]["knobs"]["cut"] = "trunk.featurs"  # type: ignore[index]

    edit(copy, break_it)  # type: ignore[arg-type]
    done = run(copy, "dvc", "repro", code=None)
    assert done.returncode != 0 and ran(done) == {"check"}
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert said.startswith(
        "error: params.yaml: finetune.rows.tl_dmi-head.knobs: cut: 'trunk.featurs' does not exist"
    )
    assert "did you mean 'trunk.features'" in said
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_split_inference_is_measured_bounded_and_shown(smoke: Path) -> None:
    with (smoke / "out/evaluate_split/leakage.csv").open() as file:
        lines = {
            (line["kind"], line["subject"], line["figure"], line["against"]): float(line["point"])
            for line in csv.DictReader(file)
        }
    # Noise that drowns the features is worth nothing to the user and nearly nothing to the attacker.
    for arm in ("plain", "cem", "sigma-0.8"):
        assert ("split victim", f"noise/{arm}", "natural accuracy", "digits") in lines
    errors = {
        arm: lines["reconstruction", f"decoder-noise/{arm}", "mse", f"noise/{arm}"]
        for arm in ("plain", "cem", "sigma-0.8")
    }
    assert 0 < errors["plain"] < errors["sigma-0.8"]
    told = {arm: lines["bound", f"noise/{arm}", "information, nats", "digits"] for arm in errors}
    assert told["sigma-0.8"] < told["plain"] and told["cem"] < told["plain"]
    # Of a known law: bound <= what is possible <= what an attack reached, and the attack is a good one.
    law = {
        name: lines["certificate", "law/plain", name, "law"]
        for name in ("population bound", "geometric mean of posterior eigenvalues", "least possible mse")
    }
    best = lines["certificate", "law/plain", "best attack", "affine-law/plain"]
    assert lines["bound", "law/plain", "mse", "law"] <= law["population bound"] * 1.01
    assert abs(law["population bound"] / law["geometric mean of posterior eigenvalues"] - 1) < 0.01
    assert law["population bound"] < law["least possible mse"] < best < 1.15 * law["least possible mse"]
    page = (smoke / "out/report_split/report.html").read_text()
    assert "Where the law of the images is known" in page and page.count("data:image/png") >= 8
    assert (smoke / "out/reconstruct/decoder-none/trunk.features.3/seed-0/recovered.safetensors").exists()


def test_membership_is_measured_where_the_records_resolve_it(smoke: Path) -> None:
    with (smoke / "out/evaluate_membership/leakage.csv").open() as file:
        lines = list(csv.DictReader(file))
    cells = {f"S-{s}/C-{c}" for s in (4, 8) for c in (2, 3)}
    found = [(line["kind"], line["subject"]) for line in lines if line["figure"] == "tpr at fpr 0.1"]
    told = {subject for kind, subject in found if kind == "membership"}
    assert told == {f"{attack}/{cell}" for attack in ("lira", "loss") for cell in cells}
    assert {subject for kind, subject in found if kind == "membership of a victim"} == {"none", "noise/cem"}
    assert not [line for line in lines if line["figure"].startswith(("tpr at fpr 0.01", "tpr at fpr 0.001"))]
    page = (smoke / "out/report_membership/report.html").read_text()
    assert "An FPR of 0.01 is refused in 4 of 4 cells" in page and page.count("data:image/png") == 4
    assert "S = 8, C = 3 and S = 4, C = 2" in page and "Spearman" in page


def test_fresh_auditors_tell_attributes_and_the_page_says_so(smoke: Path) -> None:
    with (smoke / "out/evaluate_attributes/leakage.csv").open() as file:
        lines = list(csv.DictReader(file))
    told = {
        (line["subject"], line["judge"], line["against"]) for line in lines if line["kind"] == "attribute"
    }
    for arm in ("none", "weight-1"):
        for auditor in ("knn", "logistic", "fine_tuned", "chosen on validation", "maximum on test"):
            assert (f"partitioning/{arm}", auditor, "at_least_five") in told
    assert not [line for line in lines if line["kind"] == "simulated"]
    page = (smoke / "out/report_attributes/report.html").read_text()
    assert "fresh auditor" in page and "data:image/png" in page


def test_a_scale_without_shadows_still_has_the_page_of_membership(copy: Path) -> None:
    for folder in ("shadows", "membership", "shadow_victims"):
        shutil.rmtree(copy / "out" / folder)

    def empty(values: dict[str, dict[str, object]]) -> None:
        for block in ("features", "shadows", "membership", "shadow_victims"):
            values[block]["rows"] = {}

    edit(copy, empty)  # type: ignore[arg-type]
    assert ran(run(copy, "dvc", "repro", "report_membership")) == {
        "check",
        "evaluate_membership",
        "report_membership",
    }
    assert "Nothing was run" in (copy / "out/report_membership/report.html").read_text()
    header = (copy / "out/evaluate_membership/leakage.csv").read_text().splitlines()
    assert header == ["subject,kind,figure,judge,against,point,low,high,n,seeds,method"]


def test_solvers_prototypes_and_designs_are_in_their_tables(smoke: Path) -> None:
    def rows(path: str) -> list[dict[str, str]]:
        with (smoke / path).open() as file:
            return list(csv.DictReader(file))

    found = rows("out/evaluate_split/leakage.csv")
    own = {line["figure"]: line for line in found if line["subject"] == "peel-none/trunk.features.1"}
    assert {"relative feature residual, median", "psnr, 10th percentile", "passes an image"} <= own.keys()
    named = {line["kind"]: line for line in found if line["figure"] == "named by the embedding"}
    assert {"reconstruction", "reconstruction floor", "reconstruction ceiling"} == named.keys()
    floors = {line["subject"] for line in found if line["kind"] == "reconstruction floor"}
    assert {"grey", "mean image", "mean image of its class", "mean image of its parity"} <= floors
    inside = rows("out/evaluate_split/simulated.csv")
    assert [line["subject"] for line in inside] == ["decoder-partitioning/weight-1"]
    page = (smoke / "out/report_split/report.html").read_text()
    assert "Decoders inside a training, and fresh ones" in page and "mean image of its parity" in page

    compared = rows("out/prototypes/peel-none/leakage.csv")
    errors = {line["subject"]: float(line["point"]) for line in compared if line["figure"] == "mse"}
    ratios = [line for line in compared if line["figure"] == "ratio of mse"]
    assert {line["against"] for line in ratios} == {"trunk.features.1", "trunk.features.3"}
    for line in ratios:
        expected = errors[line["subject"]] / errors[line["against"]]
        assert abs(float(line["point"]) / expected - 1) < 1e-3
        assert float(line["low"]) <= float(line["point"]) <= float(line["high"])

    leaks = rows("out/design/digits/design.csv")
    assert {(leak["variant"], leak["cut"]) for leak in leaks} == {
        (variant, f"trunk.stage{depth}") for variant in ("base", "trained") for depth in (1, 2)
    }
    assert len({leak["psnr"] for leak in leaks}) == 4 and {leak["n"] for leak in leaks} == {"3"}
    page = (smoke / "out/report_split/report.html").read_text()
    assert "Over depth" in page and "after trunk.features.3" in page and "levenberg marquardt" in page
