"""Anonymizing: who takes whose place."""

from importlib import resources

import numpy as np
import pytest
from small_videos import SIZE, similarity

from facedancer.core.alignment import landmark_template
from facedancer.core.console import UserError
from facedancer.core.measures import unit_rows
from facedancer.video_swap.common import Plan, place_faces, swap_picture
from facedancer.video_swap.sources import Source
from facedancer.video_swap.strangers import Cast, load_strangers
from facedancer.video_swap.tracking import Track

AXES = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
STRANGERS = [Source(axis, None) for axis in AXES]


def track(embedding, weights=(1, 1, 1)):
    landmarks = np.tile(landmark_template(40).astype(np.float32), (len(weights), 1, 1))
    return Track(2, landmarks, np.array(weights), None if embedding is None else np.array(embedding, float))


def drawn(embeddings, seed=0, cast=None):
    """The strangers' numbers for people of these embeddings."""
    cast = cast or Cast(STRANGERS, 0.5, seed)
    found = cast.strangers_of({i: track(embedding) for i, embedding in enumerate(embeddings)})
    return [next(n for n, stranger in enumerate(STRANGERS) if stranger is source) for source in found.values()]


def test_nobody_gets_a_stranger_like_themselves():
    person = [0.9, 0.4, 0.2]
    numbers = {drawn([person], seed)[0] for seed in range(40)}
    assert numbers == {3, 4, 5}  # those opposite, and each of them


def test_a_person_keeps_the_stranger_and_others_get_others():
    cast = Cast(STRANGERS, 0.5, 3)
    first = drawn([[1, 0, 0], [0, 1, 0], [0.9, 0.1, 0], None], cast=cast)
    assert first[0] == first[2] and len(set(first)) == 3
    assert drawn([[0, 0.9, 0]], cast=cast) == [first[1]]  # in another picture
    assert first == drawn([[1, 0, 0], [0, 1, 0], [0.9, 0.1, 0], None], seed=3)


def test_more_people_than_strangers():
    people = np.random.default_rng(0).normal(size=(20, 3)).tolist()
    assert set(drawn(people)) <= set(range(6)) and len(drawn([None] * 20)) == 20


def test_no_frame_shows_the_person():
    """Where a swap would fade, at the ends of a track and in profile, the stranger stays in full."""
    person = track([1, 0, 0], [0, 0.5, 1, 0.5, 0])
    faded = place_faces(Plan(STRANGERS[:1]), [person], 8)
    assert [[face.weight for face in faces] for faces in faded] == [[], [], [], [0.5], [1], [0.5], [], []]
    hidden = place_faces(Plan(STRANGERS, cast=Cast(STRANGERS, 0.5, 0)), [person], 8)
    assert [[face.weight for face in faces] for faces in hidden] == [[], [], [1], [1], [1], [1], [1], []]


def test_a_picture_has_the_strangers_face(make_swapper):
    image = np.full((96, 96, 3), (1, 60, 60), np.uint8)  # the first pixel says how many faces there are
    swapper = make_swapper(similarity(1.0, 0.0, (48, 48)))
    swapped = swap_picture(swapper, Plan(STRANGERS, cast=Cast(STRANGERS, 0.5, 1)), image).image
    person = swapper.encoder(image[None, :SIZE, :SIZE])[0]
    middle = swapped[48, 48] / 127.5 - 1
    likest = (unit_rows(AXES) @ middle).argmax()
    assert np.abs(middle - AXES[likest]).max() < 0.02 and AXES[likest] @ person < 0


def test_the_included_people(make_swapper):
    swapper = make_swapper()
    swapper.encoder.name = "dlib_resnet"
    strangers = load_strangers(swapper)
    embeddings = unit_rows([stranger.embedding for stranger in strangers])
    assert embeddings.shape == (60, 128) and np.isfinite(embeddings).all()
    cosines = embeddings @ embeddings.T - np.eye(60)
    assert cosines.max() < 0.61  # no two of them are the same person
    with resources.files("facedancer.video_swap").joinpath("strangers.npz").open("rb") as file:
        assert np.load(file)["dlib_resnet"].dtype == np.float16


def test_a_model_that_they_are_not_known_to(make_swapper):
    swapper = make_swapper()
    swapper.encoder.name = "arcface_res50"
    with pytest.raises(UserError, match="known to dlib_resnet, this model takes embeddings of arcface_res50"):
        load_strangers(swapper)
    swapper = make_swapper(decoders=("ann", "ben"))
    with pytest.raises(UserError, match="needs more of a source than its identity"):
        load_strangers(swapper)
