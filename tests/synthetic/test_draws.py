"""Draws: each from its own seed, none from another's, and within what people are like."""

import dataclasses

import numpy as np
import pytest

from facedancer.synthetic import draws
from facedancer.synthetic.draws import draw_identity, draw_kind, draw_person
from facedancer.synthetic.head import load_head
from facedancer.synthetic.scenes import BACKGROUNDS, OCCLUDERS, draw_scene
from facedancer.synthetic.truth import LEFT_CORNER, LEFT_LIDS, RIGHT_CORNER, RIGHT_LIDS


def same(a, b):
    """Whether two draws are equal, arrays within them included."""
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize("draw", [draw_identity, draw_person, draw_scene, draw_kind])
def test_a_draw_depends_on_its_seed_alone(draw):
    first = draw(7)
    draw(8)
    assert same(first, draw(7))
    assert not same(first, draw(8))


def test_identity_and_person_of_a_number_are_of_one_kind():
    for number in range(20):
        assert draw_identity(number).kind == draw_person(number).kind


def test_a_person_can_be_drawn_for_another_kind():
    kind = draw_kind(5)
    person = draw_person(6, kind)
    assert person.kind == kind
    assert person.number == 6


def test_sliders_stay_within_their_ends():
    head = load_head()
    for number in range(30):
        for shape in (draw_identity(number).shape, draw_person(number).shape):
            assert set(shape) <= set(head.morphs)
            assert max(shape.values()) <= 1.0
            assert min(shape.values()) >= 0.0


def test_faces_are_proportioned_as_people_are():
    """Adults' mouths and noses vary by 7 to 13 % of their length, against the distance of the eyes."""
    head = load_head()
    points = np.stack([head.vertices + head.offsets(draw_identity(number).shape) for number in range(60)])
    points = points[:, head.landmarks]

    def length(a, b):
        return np.linalg.norm(points[:, a].mean(1) - points[:, b].mean(1), axis=1)

    eyes = length(LEFT_LIDS, RIGHT_LIDS)
    for a, b in (([LEFT_CORNER], [RIGHT_CORNER]), ([27], [33])):
        share = length(a, b) / eyes
        assert 0.05 < share.std() / share.mean() < 0.13


def test_everything_that_can_be_drawn_is():
    people = [draw_person(number) for number in range(400)]
    scenes = [draw_scene(number) for number in range(600)]
    styles = set(draws.HAIR_STYLES["man"]) | set(draws.HAIR_STYLES["woman"])
    assert {person.hair.style for person in people} == styles
    assert {person.beard for person in people} == set(draws.BEARDS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.occluder for scene in scenes} == {None, *OCCLUDERS}
    assert 0.03 < np.mean([scene.glasses is not None for scene in scenes]) < 0.2
    women = [person for person in people if person.kind.sex < 0.5]
    assert 0.4 < len(women) / len(people) < 0.6
    assert all(person.beard == "none" for person in women)


def test_colors_are_reflectances():
    for number in range(50):
        identity, person = draw_identity(number), draw_person(number)
        for color in (identity.iris, identity.brow.color, person.skin, person.hair.color):
            assert 0 < min(color) <= max(color) < 1
        red, green, blue = person.skin
        assert red > green > blue
