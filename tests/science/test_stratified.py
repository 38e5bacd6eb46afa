"""Who is in a shadow's half, person by person."""

import pytest
import torch

from mipriv.errors import InputError
from mipriv.shadows import stratified

PEOPLE = torch.arange(7).repeat_interleave(12)
TRAINED = (torch.arange(84) % 12) < 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_record_is_in_half_of_the_models_and_every_model_has_half_of_a_person(seed: int) -> None:
    people = PEOPLE[torch.randperm(84, generator=torch.Generator().manual_seed(seed))]
    members = stratified.halves(people, 6, seed)
    assert members.sum(0).tolist() == [3] * 84
    for person in range(7):
        assert members[:, people == person].sum(1).tolist() == [6] * 6
    assert (members[0::2] != members[1::2]).all()
    assert not torch.equal(members[0], members[2])


def test_a_pool_has_the_members_and_as_many_others_of_each_person_and_the_rest_is_population() -> None:
    pool = stratified.pool_of(PEOPLE, TRAINED, 0)
    everybody = torch.cat([pool.records, pool.population])
    assert everybody.sort().values.tolist() == list(range(84))
    assert torch.equal(pool.members, TRAINED[pool.records])
    for person in range(7):
        own = PEOPLE[pool.records] == person
        assert int(pool.members[own].sum()) == 5
        assert int(own.sum()) == 10
    assert not TRAINED[pool.population].any()


def test_halves_do_not_know_whom_the_victim_was_trained_on() -> None:
    """Over many shadows, a victim's members are in their halves as often as its others, and not more."""
    pool = stratified.pool_of(PEOPLE, TRAINED, 0)
    members = stratified.halves(PEOPLE[pool.records], 200, 0)
    both = (members == pool.members).double().mean(1)
    assert members.shape == (200, 70)
    assert float(both.mean()) == 0.5  # pairs are complements
    assert 0.02 < float(both.std()) < 0.12


def test_a_model_is_selected_by_records_it_is_not_trained_on() -> None:
    members = stratified.halves(PEOPLE, 4, 3)
    for own in members:
        chosen = stratified.held(PEOPLE, own, 2, 5)
        assert not own[chosen].any()
        assert PEOPLE[chosen].bincount().tolist() == [2] * 7


@pytest.mark.parametrize("models", [0, 1, 5])
def test_an_odd_number_of_models_is_refused(models: int) -> None:
    with pytest.raises(InputError, match="even number, from 2"):
        stratified.halves(PEOPLE, models, 0)


def test_a_person_with_too_few_other_images_is_refused() -> None:
    with pytest.raises(InputError, match="person 0 has 7 images in training, 5 beside"):
        stratified.pool_of(PEOPLE, (torch.arange(84) % 12) < 7, 0)


def test_an_odd_number_of_records_of_a_person_is_refused() -> None:
    with pytest.raises(InputError, match="person 0 has 3 records"):
        stratified.halves(torch.zeros(3, dtype=torch.int64), 2, 0)
