"""What the guides tell people to type exists, parses, and runs."""

import copy
import re
import subprocess
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from flows.scale import override
from mipriv import plugin
from mipriv.attacks.inversion import offer
from mipriv.defenses import Batch
from mipriv.errors import InputError
from mipriv.models.generators.eigenfaces import Eigenfaces
from tasks.checks.parameters import Parameters
from tasks.engine import params
from tests.docs.guides import ROOT, blocks, commands, pages

PLACES = {"NAME", "STAGE", "STAGE...", "KEY=VALUE", "BUCKET"}  # words that a reader replaces


@cache
def desk() -> dict[str, Any]:
    return params.load(ROOT / "params.yaml")


@cache
def helped(module: str) -> str:
    """What a module answers to ``--help``."""
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def rows(page: Path) -> dict[str, set[str]]:
    """Rows by block, of the desk scale and of the page's own snippets."""
    found = {name: set(block.get("rows", {})) for name, block in desk().items()}
    for values in snippets(page):
        for name, block in values.items():
            stage, _, rest = name.partition(".")
            own = block if rest == "rows" else block.get("rows", {}) if isinstance(block, dict) else {}
            found.setdefault(stage, set()).update(own)
    return found


def snippets(page: Path) -> list[dict[str, Any]]:
    """YAML blocks that are parameters."""
    loaded = [YAML(typ="safe").load(block) for block in blocks(page, "yaml")]
    return [values for values in loaded if isinstance(values, dict) and known(next(iter(values)))]


def known(key: str) -> bool:
    return key.partition(".")[0] in desk()


def exists(target: str, page: Path) -> bool:
    """Whether a stage, a row of one or a row alone is there."""
    stages = set(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"])
    stage, _, row = target.partition("@")
    own = rows(page)
    if row:
        return stage in stages and row in own[stage]
    return stage in stages or any(stage in names for names in own.values())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scales = {
        path.relative_to(ROOT / "scales").with_suffix("").as_posix()
        for path in (ROOT / "scales").rglob("*.yaml")
    }
    scales |= set(re.findall(r"`scales/(\w+)\.yaml`", page.read_text(encoding="utf-8")))
    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        elif words[:2] == ["dvc", "repro"]:
            named = [word for word in words[2:] if not word.startswith("-")]
            assert all(exists(word, page) for word in named), words
        elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("flows", "tasks", "bench"):
            check_module(words[2], words[3:], scales, page)


def check_module(module: str, given: list[str], scales: set[str], page: Path) -> None:
    assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    options = [word for word in given if re.fullmatch(r"-[A-Za-z]|--[a-z-]+", word)]
    assert all(re.search(rf"(^|[\s,[]){option}\b", helped(module)) for option in options), (module, options)
    named = [word for word in given if not word.startswith("-") and word not in PLACES]
    if module == "flows.scale" and named:
        assert named[0] in scales, (module, named)
        named = named[1:]
    if module in ("flows.scale", "flows.whole", "flows.run"):
        assert all(exists(word, page) for word in named if "=" not in word), (module, named)
        for word in (word for word in named if "=" in word):
            override(copy.deepcopy(desk()), {word.partition("=")[0]: None}, str(page))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_parameters_are_accepted(page: Path) -> None:
    """Snippets go into the desk scale, and the models of its blocks take them."""
    for snippet in snippets(page):
        values = copy.deepcopy(desk())
        if any("." in key for key in snippet):
            override(values, snippet, str(page))
        else:
            merge(values, snippet)
        Parameters(values)


def merge(values: dict[str, Any], snippet: dict[str, Any]) -> None:
    """Put a snippet where a reader would."""
    for key, value in snippet.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def test_a_wrong_snippet_is_seen() -> None:
    values = copy.deepcopy(desk())
    merge(
        values,
        {"invert": {"rows": {"mine": {"attack": "ppa", "victim": "none", "prior": "eigenfaces", "seed": 0}}}},
    )
    with pytest.raises(InputError, match="seed"):
        Parameters(values)


def module(page: str, name: str) -> types.ModuleType:
    """A page's first Python block, as the module that it tells people to write."""
    made = types.ModuleType(name)
    sys.modules[name] = made  # dataclasses look for their module
    exec(compile(blocks(ROOT / "docs" / "howto" / page, "python")[0], page, "exec"), made.__dict__)
    return made


def test_the_attack_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "mipriv.attacks.inversion.random_search"
    made = module("new_attack.md", name)
    monkeypatch.setattr(plugin, "names", lambda family: ["random_search"])
    attack = plugin.load("inversion", "random_search", samples=12, keep=3, chunk=5)
    victim = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    prior, _ = Eigenfaces(components=5).fit(torch.rand(40, 1, 8, 8), seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        found = attack(offer(victim, attack.access), prior, torch.tensor([1, 3]), seed=0)
    assert found.images.shape == found.start.shape == (2, 3, 1, 8, 8)
    assert found.latents.shape == (2, 3, 5) and found.scores.shape == (2, 3)
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()
    asked = victim(found.images.flatten(0, 1)).softmax(1).view(2, 3, 4)
    assert torch.allclose(asked[0, :, 1], found.scores[0]) and torch.allclose(asked[1, :, 3], found.scores[1])
    with pytest.raises(InputError, match="keep: 0"):
        made.RandomSearch(keep=0)
    del sys.modules[name]


def test_the_defence_of_the_guide_runs() -> None:
    name = "mipriv.defenses.confidence"
    made = module("new_defence.md", name)
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.randint(4, (6,))
    batch = Batch(torch.rand(6, 1, 8, 8), labels, logits, epoch=0, epochs=1)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert made.Confidence(weight=0.0).loss(batch, 0) == plain
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert torch.isclose(made.Confidence(weight=0.5).loss(batch, 0), plain - 0.5 * entropy)
    with pytest.raises(InputError, match="weight"):
        made.Confidence(weight=-1.0)
    del sys.modules[name]


def test_the_mistake_of_the_tutorial_reads_as_printed() -> None:
    printed = next(
        block for block in blocks(ROOT / "docs" / "tutorial.md", "text") if block.startswith("error")
    )
    values = next(iter(snippets(ROOT / "docs" / "tutorial.md")))
    wrong = dict(values["finetune"]["rows"]["ls-strong"]["knobs"])
    wrong["alhpa"] = wrong.pop("alpha")
    with pytest.raises(InputError) as refused:
        params.plugin_knobs("defense", "label_smoothing", wrong, "finetune.rows.ls-strong.knobs")
    assert f"error: {refused.value}\n" == printed
