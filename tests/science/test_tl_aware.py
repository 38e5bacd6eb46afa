"""An attacker who knows the cut learns from the front alone, and inverts the rest alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mipriv import draws
from mipriv.attacks.inversion.tl_aware import FeatureSpace, TLAware
from mipriv.attacks.search.identity import LOSSES
from mipriv.data.augment import Augment, mirrored
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, Normalise
from mipriv.models.decoders import ConvDecoder, Decoder
from mipriv.models.generators import Generator
from mipriv.models.split import split
from tests.science.conftest import CLASSES, SHAPE

CUT = "trunk.stage1"
DECODER = ConvDecoder(width=8, steps=60, batch_size=8, lr=1e-2, augment=Augment())
ATTACK = TLAware(cut=CUT, decoder=DECODER, components=8, samples=20, candidates=2, steps=3, chunk=5)


def learnt(victim: nn.Module, prior: Generator, faces: Tensor, attack: TLAware = ATTACK) -> FeatureSpace:
    knowledge = attack.study(victim, prior, faces.double(), seed=1).knowledge
    assert isinstance(knowledge, FeatureSpace)
    return knowledge


@pytest.mark.parametrize(
    ("features", "image"),
    [((5, 4, 4), (1, 16, 16)), ((5, 2, 2), (3, 16, 16)), ((7,), (1, 12, 20)), ((6, 3), (1, 8, 8))],
)
def test_a_decoder_makes_images_of_features_of_any_shape(
    features: tuple[int, ...], image: tuple[int, int, int]
) -> None:
    images = Decoder(features, image, width=2)(torch.randn(3, *features))
    assert images.shape == (3, *image) and images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("feature_weight", [0.0, 0.1])
def test_the_decoder_undoes_the_front_on_images_it_has_not_seen(
    feature_weight: float, victim: Classifier, faces: Tensor
) -> None:
    faces, parts = faces.double(), split(victim, CUT, SHAPE)
    victim.requires_grad_(False)
    seen, unseen = faces[:30], faces[30:]
    error = {}
    for steps in (1, 300):
        maker = ConvDecoder(16, steps, 16, 1e-2, feature_weight, Augment())
        model, log = maker.fit(parts.client, seen, seed=0)
        with torch.no_grad():
            error[steps] = (model(parts.client(unseen)) - unseen).square().mean().item()
    mean = (seen.mean(0) - unseen).square().mean().item()
    assert error[300] < 0.8 * mean < mean < error[1]
    assert log[0]["step"] == 0 and log[-1]["step"] == 299
    assert log[-1]["image_error"] < 0.5 * log[0]["image_error"]
    assert ("feature_error" in log[0]) == (feature_weight > 0)
    assert feature_weight == 0 or log[-1]["feature_error"] < 0.5 * log[0]["feature_error"]


def test_latents_are_whitened_principal_components(
    victim: Classifier, prior: Generator, faces: Tensor
) -> None:
    """Projected onto its components, the public set has mean 0 and variance 1 in each."""
    space = learnt(victim, prior, faces)
    everyone = torch.cat([faces, mirrored(faces)]).double()
    with torch.no_grad():
        rows = split(victim, CUT, SHAPE).client(everyone).flatten(1)
    axes = space.directions.flatten(1)
    z = (rows - rows.mean(0)) @ axes.T / axes.square().sum(1)
    assert torch.allclose(z.T.cov(), torch.eye(8, dtype=z.dtype), atol=1e-8)
    assert torch.allclose(space.mean.flatten(), rows.mean(0))
    assert space.variance.item() == pytest.approx(rows.var(0).mean().item())
    covariance = torch.linalg.eigvalsh(rows.T.cov())
    assert torch.allclose(axes.square().sum(1), covariance.flip(0)[:8])


def test_the_study_depends_on_the_front_alone(victim: Classifier, prior: Generator, faces: Tensor) -> None:
    """Two victims behind one front teach the same, to the bit; one with another front does not."""
    other, moved = copy.deepcopy(victim), copy.deepcopy(victim)
    with torch.no_grad():
        for weight in [*other.trunk.stage2.parameters(), *other.head.parameters()]:  # type: ignore[union-attr]
            weight.add_(1.0)
        moved.trunk.stem[0].weight.mul_(0.5)  # type: ignore[union-attr, index, operator]
        moved.trunk.stem[0].weight[0].neg_()  # type: ignore[union-attr, index]
    one, two, three = (learnt(model, prior, faces).state_dict() for model in (victim, other, moved))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["mean"], three["mean"])


def test_the_study_evaluates_nothing_behind_the_cut(
    victim: Classifier, prior: Generator, faces: Tensor
) -> None:
    seen, asked = [0], [0]
    victim.head.register_forward_pre_hook(lambda m, x: seen.__setitem__(0, seen[0] + len(x[0])))
    victim.trunk.stage1.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda m, x: asked.__setitem__(0, asked[0] + len(x[0]))
    )
    found = ATTACK.study(victim, prior, faces.double(), seed=1)
    assert seen[0] == 2, "the two evaluations that a split costs"
    assert found.queries == asked[0]


def test_a_blank_takes_what_a_study_left(victim: Classifier, prior: Generator, faces: Tensor) -> None:
    knowledge = learnt(victim, prior, faces)
    blank = ATTACK.blank(victim, prior, CLASSES, SHAPE).double()
    blank.load_state_dict(knowledge.state_dict())
    targets = torch.tensor([1, 4])
    one, two = (ATTACK(victim, prior, targets, knowledge=k, seed=0) for k in (knowledge, blank))
    assert torch.equal(one.images, two.images)
    assert torch.equal(knowledge(one.latents.flatten(0, 1)), one.images.flatten(0, 1)), (
        "latents make the images"
    )


@pytest.mark.parametrize("loss", ["logit", "max_margin", "poincare"])
def test_the_objective_is_its_formula(loss: str, victim: Classifier, prior: Generator, faces: Tensor) -> None:
    attack = TLAware(CUT, DECODER, components=8, loss=loss, consistency_weight=3.0)
    space, parts = learnt(victim, prior, faces), split(victim, CUT, SHAPE)
    z = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 5, 2, 2])
    victim.eval()
    found = attack.objective(parts, space, z, labels)
    for row, label, value in zip(z, labels, found, strict=True):
        h = space.mean.clone()
        for coordinate, direction in zip(row, space.directions, strict=True):
            h = h + coordinate * direction
        back = parts.client(space.decoder(h[None]))[0]
        gap = sum((a - b) ** 2 for a, b in zip(h.flatten().tolist(), back.flatten().tolist(), strict=True))
        identity = LOSSES[loss](parts.server(h[None]), label[None])[0]
        expected = identity + 3.0 * gap / h.numel() / space.variance
        assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_rows_begin_where_the_server_believes_most(
    victim: Classifier, prior: Generator, faces: Tensor
) -> None:
    space, server = learnt(victim, prior, faces), split(victim, CUT, SHAPE).server
    still = TLAware(CUT, DECODER, components=8, samples=20, candidates=2, steps=1, lr=1e-12)
    found = still(victim, prior, torch.tensor([3]), knowledge=space, seed=2)
    pool = draws.normal((20, 8), 2, "pool").clamp(-2.5, 2.5)
    with torch.no_grad():
        belief = [server(space.features(z[None])).softmax(1)[0, 3].item() for z in pool]
    best = sorted(range(20), key=lambda i: -belief[i])[:2]
    expected = sorted(pool[best].tolist())
    assert torch.allclose(torch.tensor(sorted(found.latents[0].tolist())), torch.tensor(expected))


def test_what_keeps_features_near_images_does_so(victim: Classifier, prior: Generator, faces: Tensor) -> None:
    space, parts = learnt(victim, prior, faces), split(victim, CUT, SHAPE)
    gaps = []
    for weight in (0.0, 30.0):
        attack = TLAware(CUT, DECODER, components=8, samples=20, steps=40, consistency_weight=weight)
        z = attack(victim, prior, torch.arange(CLASSES), knowledge=space, seed=0).latents.flatten(0, 1)
        h = space.features(z)
        gaps.append((h - parts.client(space.decoder(h))).square().mean().item())
    assert gaps[1] < 0.8 * gaps[0]


def test_a_linear_server_is_climbed(prior: Generator, faces: Tensor) -> None:
    """Behind the last module of the trunk: the target's logit rises from start to end in every row."""
    trunk = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Flatten())
    with draws.seeded(0):
        for part in (
            model := Classifier(trunk, nn.Linear(192, CLASSES), Normalise((0.5,), (0.2,)))
        ).modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.reset_parameters()
    model = model.double().eval()
    attack = TLAware(
        "trunk", DECODER, 8, samples=20, candidates=2, steps=30, loss="logit", consistency_weight=0
    )
    space = learnt(model, prior, faces, attack)
    begun = TLAware("trunk", DECODER, 8, samples=20, candidates=2, steps=1, lr=1e-12)
    targets = torch.arange(CLASSES)
    tops = []
    for one in (begun, attack):
        z = one(model, prior, targets, knowledge=space, seed=0).latents
        logits = model.head(space.features(z.flatten(0, 1))).view(CLASSES, 2, CLASSES)
        tops.append(logits[targets, :, targets].detach().sort(1).values)
    assert (tops[1] > tops[0]).all()
    ideal = torch.einsum(
        "dc,kc->kd", space.directions, model.head.weight
    ).sign()  # where a linear server leads
    z = attack(model, prior, targets, knowledge=space, seed=0).latents.detach()
    assert ((z[:, 0] * ideal).sum(1) > 0).all()


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        ("trunk.stag1", r"does not exist \(did you mean 'trunk.stage1'\?\)"),
        ("head", "leaves nothing to invert; allowed: a module before the last layer"),
        ("trunk.stage2.0.conv1", "is crossed by a skip connection"),
    ],
)
def test_a_cut_that_leaves_nothing_to_invert_is_refused_before_any_work(
    cut: str, why: str, victim: Classifier, prior: Generator, faces: Tensor
) -> None:
    attack = TLAware(cut, DECODER, components=8)
    with pytest.raises(InputError, match=f"cut: '{cut}' {why}"):
        attack.blank(victim, prior, CLASSES, SHAPE)
    with pytest.raises(InputError, match=f"cut: '{cut}' {why}"):
        attack.study(victim, prior, faces.double(), seed=0)


def test_impossible_knobs_are_refused(victim: Classifier, prior: Generator, faces: Tensor) -> None:
    with pytest.raises(InputError, match="components: 80; allowed: fewer than the 80 public images"):
        TLAware(CUT, DECODER, components=80).study(victim, prior, faces.double(), seed=0)
    with pytest.raises(InputError, match=r"candidates: 9; allowed: 1 to samples \(8\)"):
        TLAware(CUT, samples=8, candidates=9)
    for knobs, why in (
        ({"steps": 0}, "1 or more"),
        ({"loss": "none"}, "cross_entropy"),
        ({"limit": 0}, "above 0"),
    ):
        with pytest.raises(InputError, match=why):
            TLAware(CUT, **knobs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size: 1; allowed: 2 or more"):
        ConvDecoder(batch_size=1)
