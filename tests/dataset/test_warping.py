"""Warped faces and the faces themselves: the original's numbers, and the same from both loaders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face

from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter
from facedancer.dataset.input_pipeline import build_dataset
from facedancer.dataset.pairing import People, StreamOptions
from facedancer.dataset.record_loader import iterate_batches
from facedancer.dataset.warping import POINTS, draw_warps, sample_pair, warp_pair

FIXTURE = Path(__file__).resolve().parents[3] / "shared/fixtures/autoencoder/warp_pair_io.npz"


@pytest.mark.skipif(not FIXTURE.is_file(), reason="needs ../shared/fixtures/autoencoder")
def test_the_originals_pair():
    stored = np.load(FIXTURE)
    across = np.linspace(128 - 90, 128 + 90, POINTS)
    columns, rows = across + stored["noise_x"], across[:, None] + stored["noise_y"]
    found = sample_pair(stored["picture"], columns, rows, 64, first=0)
    for face, name in zip(found, ("warped", "target"), strict=True):
        assert np.abs(face - stored[name]).max() < 1e-5


def test_nothing_drawn_is_the_middle_of_the_picture():
    picture = draw_face(1, 64)
    (still,) = zip(*draw_warps(1, 0, 0, augment=False), strict=True)
    for face in warp_pair(picture, *still, 0.5, 32):
        np.testing.assert_array_equal(face, picture[16:48, 16:48])


def test_both_faces_lie_on_the_same_pixels():
    """Warped many times, a face is on average where it is wanted, which the original's is not by half a pixel."""
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[40:56, 40:56] = 255
    placements, warps = draw_warps(300, 0, 0, augment=True)
    pairs = [warp_pair(picture, (0, 1, 0, 0, 1), warp, 0.7, 48) for warp in warps]
    centers = [[np.argwhere(face[..., 0] > 127).mean(0) for face in pair] for pair in pairs]
    assert np.abs(np.diff(centers, axis=1).mean(0)).max() < 0.1
    assert np.abs(placements[:, 0]).max() < np.radians(10) and 0.2 < (placements[:, 4] < 0).mean() < 0.6


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Seven pictures of one person, three of another, one of nobody who is trained."""
    path = tmp_path_factory.mktemp("people") / "x.records"
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for person, count in (("ann", 7), ("ben", 3), ("cleo", 1)):
            for variation in range(count):
                writer.write(FaceRecord(encode_image(draw_face(ord(person[0]), 64, variation), ".png"), person))
    return str(path)


def test_people_take_turns(shard):
    people = People(("ann", "ben"), turn=2, coverage=0.7)
    batches = list(_first(iterate_batches(shard, StreamOptions(2, 16, people=people), processes=0), 8))
    shown = [set(batch["people"][:, 0]) for batch in batches]
    # Of each window, eleven records here, batches of two begin where the last one ended.
    turns = [(2 * index) // 2 // 2 % 2 for index in range(8)]
    assert sum(found == {turn} for found, turn in zip(shown, turns, strict=True)) == 8
    assert all((batch["warped"] != batch["target"]).any() for batch in batches)


@pytest.mark.parametrize("turn, augment", [(2, True), (0, False)])
def test_both_loaders_give_the_same_and_go_on_anywhere(shard, turn, augment):
    options = StreamOptions(3, 16, people=People(("ann", "ben"), turn, 0.7), augment=augment, seed=3)
    ours = list(_first(iterate_batches(shard, options, processes=0), 5))
    theirs = list(build_dataset(shard, options).take(5).as_numpy_iterator())
    later = list(_first(iterate_batches(shard, replace(options, start_step=3), processes=0), 2))
    for first, others in ((ours, theirs), (ours[3:], later)):
        for a, b in zip(first, others, strict=True):
            assert a.keys() == b.keys() > {"warped", "people"}
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    if not turn:
        assert all((batch["warped"] == batch["target"]).all() for batch in ours)
        assert {-1, 0, 1} == {number for batch in ours for number in batch["people"].ravel()}


def _first(batches, count):
    for _, batch in zip(range(count), batches, strict=False):
        yield batch
