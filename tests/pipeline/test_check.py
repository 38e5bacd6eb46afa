"""Bad parameters: one line each that names the key, what it was and what is allowed."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from mipriv import plugin
from mipriv.errors import InputError
from tasks import report, report_attributes, report_membership, report_split
from tasks.check import check, main
from tasks.checks import splits
from tasks.checks.parameters import Parameters
from tasks.engine import params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def desk() -> dict[str, Any]:
    return params.load(ROOT / "params.yaml")


def test_the_desk_scale_is_consistent(desk: dict[str, Any]) -> None:
    check(desk)


def test_what_was_checked_is_left_block_by_block(
    desk: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block as it is, but the one that says where and how fast."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        sys, "argv", ["tasks.check", "--out", f"{tmp_path}/check.json", "--parameters", f"{tmp_path}/blocks"]
    )
    rows = [f"{tmp_path}/{block}/rows.json" for block in ("shadows", "membership", "attributes")]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--rows", *rows])
    assert main() == 0 and (tmp_path / "check.json").exists()
    assert [json.loads(Path(path).read_text()) for path in rows] == [
        ["digits"],
        ["lira", "lira-offline", "loss", "rmia"],
        ["partitioning"],
    ]
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "blocks").iterdir()}
    assert found == {name: block for name, block in desk.items() if name != "cost"}


@pytest.mark.parametrize(
    ("stage", "blocks"),
    [
        ("report", report.BLOCKS),
        ("report_split", report_split.BLOCKS),
        ("report_membership", report_membership.BLOCKS),
        ("report_attributes", report_attributes.BLOCKS),
    ],
)
def test_a_page_depends_on_every_block_that_it_shows(stage: str, blocks: tuple[str, ...]) -> None:
    deps = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    assert {dep for dep in deps if dep.startswith("out/parameters/")} == {
        f"out/parameters/{name}.json" for name in blocks
    }


WRONG = [
    ("finetune.recipes.all.epochs", "ten", r"finetune\.recipes\.all\.epochs: 'ten' is not a valid integer"),
    ("finetune.recipes.all.epochs", 0, r"epochs: 0; allowed: above 0"),
    ("finetune.recipes.all.lr", True, r"finetune\.recipes\.all\.lr: True is not"),
    (
        "finetune.recipes.all.epoch",
        3,
        r"finetune\.recipes\.all: 'epoch' does not exist \(did you mean 'epochs'",
    ),
    (
        "finetune.rows.none.defense",
        "tl_dim",
        r"'tl_dim' does not exist \(did you mean 'tl_dmi'\?\); allowed: .*, none, .*tl_dmi",
    ),
    ("finetune.rows.none.backbone", "imagnet", r"rows\.none\.backbone: 'imagnet'.*allowed: imagenet"),
    ("finetune.rows.none.recipe", "most", r"rows\.none\.recipe: 'most'.*allowed: all, head"),
    ("finetune.rows.none.seeds", [0, 0], r"rows\.none\.seeds: \[0, 0\]; allowed: .*each once"),
    (
        "finetune.rows.tl_dmi-last.knobs.cut",
        "trunk.features.31",
        r"tl_dmi-last\.knobs: cut: 'trunk\.features\.31' does not exist",
    ),
    ("finetune.rows.tl_dmi-last.knobs.cut", "head", r"leaves nothing to train"),
    ("finetune.rows.tl_dmi-last.knobs.cutt", "trunk", r"'cutt' does not exist \(did you mean 'cut'"),
    ("features.rows.digits.data", "digit", r"features\.rows\.digits\.data: 'digit'.*allowed: digits, faces"),
    ("features.rows.digits.arch", "resnet99", r"features\.rows\.digits.*'resnet99' does not exist"),
    ("features.rows.digits.weights", "imagenet", r"features\.rows\.digits\.weights: pretrained weights: 'im"),
    ("shadows.rows.digits.features", "digit", r"shadows\.rows\.digits\.features: 'digit'.*allowed: digits"),
    ("shadows.rows.digits.recipe", "sgd", r"shadows\.rows\.digits\.recipe: 'sgd'.*allowed: adam, converged"),
    ("shadows.rows.digits.seeds", [1, 1], r"shadows\.rows\.digits\.seeds: \[1, 1\]; allowed: .*each once"),
    ("shadows.rows.digits.models", 7, r"shadows\.rows\.digits\.models: 7"),
    ("shadows.rows.digits.classes", [2, 11], r"shadows\.rows\.digits: classes: 11; allowed: up to 10"),
    ("shadows.recipes.adam.knobs", {"steps": 9}, r"shadows\.recipes\.adam\.knobs\.lr: is missing"),
    ("membership.rows.rmia.of", "digit", r"membership\.rows\.rmia\.of: 'digit'.*allowed: digits"),
    ("membership.rows.rmia.attack", "rmai", r"rows\.rmia.*'rmai' does not exist \(did you mean 'rmia'"),
    ("membership.rates", [1.5], r"membership\.rates\.0: 1\.5"),
    (
        "report_membership.roc",
        [[128, 10], [128, 3]],
        r"report_membership\.roc: \[128, 3\]; allowed: \[128, 10\], .*\[8, 2\], of digits",
    ),
    ("split.rows.partitioning.knobs.private", "high", r"private: 'high'.*allowed: at_least_five"),
    ("attributes.rows.partitioning.victim", "parity", r"rows\.partitioning\.victim: 'parity' does not exist"),
    ("attributes.rows.partitioning.data", "law", r"rows\.partitioning\.data: 'law'.*allowed: digits"),
    (
        "attributes.rows.partitioning.attributes",
        ["high"],
        r"attributes: 'high'.*allowed: at_least_five, identity",
    ),
    ("attributes.rows.partitioning.budgets", [0.1, 0.1], r"budgets: \[0\.1, 0\.1\]; allowed: .*each once"),
    (
        "attributes.rows.partitioning.population",
        "public",
        r"population: 'public', but 'digits' has no public",
    ),
    (
        "attributes.rows.partitioning.undefended",
        "partitioning/plain",
        r"undefended: 'partitioning/plain' does",
    ),
    ("attributes.rows.partitioning.seeds", [7], r"attributes\.rows\.partitioning\.seeds: '7' does not exist"),
    ("attributes.auditors.knn", {"k": 3}, r"attributes\.auditors\.knn.*'k' does not exist"),
    ("report_membership.roc", [], r"report_membership\.roc: \[\]"),
    ("invert.rows.ppa-none.attack", "pppa", r"ppa-none\.attack: 'pppa'.*allowed: .*gmi.*ppa"),
    ("invert.rows.ppa-none.victim", "nobody", r"ppa-none\.victim: 'nobody'"),
    ("invert.rows.ppa-none.seeds", [7], r"ppa-none\.seeds: '7' does not exist; allowed: 0, 1, 2"),
    (
        "invert.attacks.magic",
        {},
        r"invert\.attacks\.magic: inversion: 'magic' does not exist; allowed: .*gmi.*ppa",
    ),
    ("invert.attacks.ppa.steps", 1.5, r"invert\.attacks\.ppa\.steps: 1\.5 is not a valid integer"),
    ("invert.attacks.ppa.keep", 50, r"invert\.attacks\.ppa: keep: 50; allowed: 1 to candidates \(4\)"),
    ("invert.identities", 21, r"invert\.identities: 21; allowed: at most 20, or null"),
    ("prepare.rows.faces.source", "olr", r"faces\.knobs: source: 'olr' does not exist \(did you mean 'orl'"),
    (
        "prepare.rows.faces.knobs.folder",
        "x",
        r": prepare\.rows\.faces\.knobs: source orl, knob: 'folder' does",
    ),
    ("prepare.rows.faces.split.public", 50, r": prepare\.rows\.faces\.split\.public: 50 people; .*40"),
    ("prepare.rows.faces.split.public", -1, r": prepare\.rows\.faces\.split: split\.public: -1; allowed: an"),
    ("prepare.rows.faces.split.private", 30, r": prepare\.rows\.faces\.split\.private: 30 people"),
    ("prepare.rows.faces.split.train", 8, r": prepare\.rows\.faces\.split: .*10 images; needed: 13"),
    (
        "prepare.rows.faces.transform.size",
        [64],
        r"prepare\.rows\.faces\.transform: transform, size: \[64\]; allowed: \[height,",
    ),
    ("prepare.rows.faces.transform.channels", 2, r"prepare\.rows\.faces\.transform\.channels"),
    ("prepare.row", {}, r"prepare: 'row' does not exist \(did you mean 'rows'"),
    ("pretrain.rows.imagenet.weights", "imagenet", r"weights: pretrained weights: 'imagenet' do not exist"),
    ("pretrain.rows.imagenet.arch", "resnet99", r"'resnet99' does not exist"),
    ("prior.rows.gan.knobs.objective", "wgan", r"objective: 'wgan' does not exist.*allowed: hinge, wgan_gp"),
    (
        "judge.rows.slim_vgg.arch",
        "mobilenet_v2",
        r"judge\.rows\.slim_vgg\.arch: 'mobilenet_v2' is a victim's",
    ),
    ("fisher.rows.none.victim", "nobody", r"fisher\.rows\.none\.victim: 'nobody' does not exist"),
    (
        "fisher.rows.none.attack",
        "ppa-tl_dmi-last",
        r"fisher\.rows\.none\.attack: .*allowed: .*gmi-none.*ppa-none",
    ),
    ("fisher.rows.none.seed", 7, r"fisher\.rows\.none\.seed: '7' does not exist.*allowed: 0, 1, 2"),
    ("fisher.loss", "poincar", r"fisher\.loss: 'poincar' does not exist \(did you mean 'poincare'"),
    ("fisher.images", 1, r"fisher\.images: 1"),
    ("split.rows.noise.data", "digit", r"split\.rows\.noise\.data: 'digit' does not.*did you mean 'digits'"),
    ("split.rows.noise.network", "vgg", r"split\.rows\.noise\.network: 'vgg'.*allowed: digits, faces"),
    ("split.rows.noise.arms", {}, r"split\.rows\.noise\.arms: none; allowed: one or more"),
    ("split.rows.noise.knobs.sigma", 0.0, r"split\.rows\.noise\.arms\.plain\.knobs: sigma: 0"),
    ("split.rows.nopeek.knobs.sigma", 0.0, r"nopeek\.arms\.cem\.cem: cem: its host's sigma is 0"),
    (
        "split.networks.digits.cut",
        "trunk.conv9",
        r"split\.networks\.digits: cut: 'trunk\.conv9' does not exist",
    ),
    (
        "split.networks.digits.bottleneck",
        "C8",
        r"split\.networks\.digits: bottleneck: 'C8'; allowed: \[noRELU_",
    ),
    ("reconstruct.rows.decoder-noise.victim", "noises", r"victim: 'noises'.*did you mean 'noise'"),
    ("reconstruct.rows.decoder-noise.arms", ["cemm"], r"decoder-noise\.arms: 'cemm'.*did you mean 'cem'"),
    ("reconstruct.rows.decoder-noise.data", "faces", r"decoder-noise\.data: 'faces'.*allowed: digits"),
    ("reconstruct.rows.decoder-noise.layers", ["head"], r"decoder-noise\.layers: \['head'\]; allowed: null"),
    ("reconstruct.rows.decoder-noise.knowledge", "public", r"'public', but 'digits' has no public people"),
    (
        "reconstruct.rows.decoder-noise.seeds",
        [9],
        r"decoder-noise\.seeds: '9' does not exist; allowed: 0, 1, 2",
    ),
    (
        "reconstruct.rows.decoder-none.layers",
        None,
        r"decoder-none\.layers: None; allowed: modules of the victim, each once",
    ),
    (
        "reconstruct.rows.decoder-none.layers",
        ["trunk.features.3", "trunk.features.99"],
        r"decoder-none\.layers: cut: 'trunk\.features",
    ),
    ("reconstruct.rows.decoder-none.arms", ["plain"], r"decoder-none\.arms: \['plain'\]; allowed: null"),
    (
        "prototypes.rows.peel-none.reconstruction",
        "peel-noise",
        r"reconstruction: 'peel-noise'.*allowed: deco",
    ),
    (
        "prototypes.rows.peel-none.inversions",
        ["ppa-bido"],
        r"inversions: 'ppa-bido' does not exist.*ppa-none",
    ),
    ("design.rows.digits.recipe", "digit", r"design\.rows\.digits\.recipe: 'digit'.*did you mean 'digits'"),
    ("design.rows.digits.cuts", ["trunk.stage9"], r"design\.rows\.digits\.cuts: .*'trunk\.stage9'"),
    ("design.rows.digits.knobs", {"down": "up"}, r"variants\.base.*down: 'up'"),
    ("design.rows.digits.peel", {"solver": "newton"}, r"design\.rows\.digits\.peel.*solver: 'newton'"),
    ("evaluate_split.embeddings", {"face": "dlib"}, r"embeddings\.face: 'face' does not exist"),
    ("evaluate_split.embeddings", {"faces": "dlip"}, r"embeddings\.faces: 'dlip' .*did you mean 'dlib'"),
    ("evaluate_split.noise", ["nopeek"], r"noise: 'nopeek' has the defense 'nopeek'; allowed: rows of the"),
    ("evaluate.judge_accuracy", 1.5, r"evaluate\.judge_accuracy: 1\.5"),
    ("cost.threads", 0, r"cost\.threads: 0"),
    ("cost.device", "gpu", r"cost\.device: 'gpu'.*auto, cpu, cuda"),
    ("prepair", {}, r"block: 'prepair' does not exist \(did you mean 'prepare'"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_a_mistake_is_named(desk: dict[str, Any], key: str, value: object, said: str) -> None:
    values = copy.deepcopy(desk)
    *parents, last = key.split(".")
    block = values
    for name in parents:
        block = block[name]
    block[last] = value
    with pytest.raises(InputError, match=said) as error:
        check(values)
    assert "\n" not in str(error.value) and str(error.value).startswith("params.yaml: ")


def test_a_missing_block_and_a_missing_key_are_named(desk: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"params\.yaml: block: 'judge' does not exist"):
        check({name: block for name, block in desk.items() if name != "judge"})
    values = copy.deepcopy(desk)
    del values["finetune"]["rows"]["none"]["seeds"]
    with pytest.raises(InputError, match=r"finetune\.rows\.none\.seeds: is missing"):
        check(values)


STAGES = ("pretrain", "finetune", "prior", "judge", "invert", "fisher")


def test_every_row_of_prepare_is_checked_and_asked_by_its_name(desk: dict[str, Any]) -> None:
    values = copy.deepcopy(desk)
    faces = values["prepare"]["rows"]["faces"]
    other = {**faces, "transform": {"size": [8, 6], "crop": None, "channels": 3}}
    other["split"] = {**faces["split"], "public": 1, "private": 3}
    values["prepare"]["rows"]["other"] = other
    check(values)
    wanted = Parameters(values)
    assert (wanted.image_shape("faces"), wanted.image_shape("other")) == ((1, 64, 64), (3, 8, 6))
    assert (wanted.people("faces"), wanted.people("other")) == (20, 3)

    other["split"]["private"] = 40
    with pytest.raises(
        InputError, match=r"^params\.yaml: prepare\.rows\.other\.split\.private: 40 people; allo"
    ):
        check(values)
    other["knobs"] = {"root": "nowhere"}
    with pytest.raises(
        InputError, match=r"^params\.yaml: prepare\.rows\.other\.knobs: source orl, knob: 'root'"
    ):
        check(values)


@pytest.mark.parametrize("stage", STAGES)
def test_the_row_that_stages_read_is_missed_where_one_of_them_has_rows(
    desk: dict[str, Any], stage: str
) -> None:
    values = copy.deepcopy(desk)
    values["prepare"]["rows"] = {"face": values["prepare"]["rows"]["faces"]}
    for name in (
        *STAGES,
        "split",
        "reconstruct",
        "prototypes",
        "design",
        "features",
        "shadows",
        "membership",
        "shadow_victims",
        "attributes",
        "invert_split",
        "table",
    ):
        values[name]["rows"] = desk[name]["rows"] if name == stage else {}
    values["evaluate_split"] |= {"noise": [], "embeddings": {}}
    first = next(iter(desk[stage]["rows"]))
    with pytest.raises(InputError) as refused:
        check(values)
    allowed = f"is missing; allowed: a row of this name, {stage}.rows.{first} reads it"
    assert str(refused.value) == f"params.yaml: prepare.rows.faces: {allowed}"
    values[stage]["rows"] = {}
    check(values)


def keys(values: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key, with those above it."""
    for key, value in values.items() if isinstance(values, dict) else ():
        yield (*where, key)
        yield from keys(value, (*where, key))


def test_no_parameter_is_called_what_the_run_cache_of_dvc_passes_over(desk: dict[str, Any]) -> None:
    """Its issue 10296: results of another value come back. The one such key is spelt out in dvc.yaml."""
    knobs = [
        (family, name, knob)
        for family in plugin.FAMILIES
        for name in plugin.names(family)
        for knob in plugin.knobs(family, name)
    ]
    found = [at for at in (*keys(desk), *knobs) if at[-1] in ("size", "nfiles")]
    assert found == [("prepare", "rows", row, "transform", "size") for row in desk["prepare"]["rows"]]


def test_a_defence_is_told_of_every_class_that_it_hides() -> None:
    wanted: Any = SimpleNamespace(attribute_names=lambda _: ["kind"], classes=lambda *_: 10)
    splits._hides(wanted, "split.rows.game.arms.some", "images", "kind", 10)
    said = r"^params\.yaml: split\.rows\.game\.arms\.some, classes: 9; allowed: 10 or more, as 'kind' has$"
    with pytest.raises(InputError, match=said):
        splits._hides(wanted, "split.rows.game.arms.some", "images", "kind", 9)
