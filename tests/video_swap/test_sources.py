"""Sources: of pictures, of their mean, of a file; pairs of people and sources."""

import numpy as np
import pytest
from small_videos import similarity

from facedancer.core.console import UserError
from facedancer.core.images import write_image
from facedancer.video_swap.sources import load_source, read_direction, read_pairs, save_source


@pytest.fixture
def swapper(make_swapper):
    made = make_swapper(similarity(1.0, 0.0, (30, 30)))
    made.encoder.name = "mean_color"
    return made


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for name, color in (("red", (250, 120, 120)), ("green", (120, 250, 120))):
        paths.append(tmp_path / f"{name}.png")
        image = np.full((60, 60, 3), color, np.uint8)
        image[0, 0, 0] = 1  # faces, for the stand-in of the detector
        write_image(paths[-1], image)
    return paths


def test_the_mean_of_several(swapper, pictures):
    red, green = (load_source(swapper, [path]).embedding for path in pictures)
    mean = load_source(swapper, pictures).embedding
    unit = red / np.linalg.norm(red) + green / np.linalg.norm(green)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), unit / np.linalg.norm(unit), atol=1e-5)
    assert np.linalg.norm(mean) == pytest.approx((np.linalg.norm(red) + np.linalg.norm(green)) / 2, rel=1e-5)


def test_saved_and_read_again(swapper, pictures, tmp_path):
    source = load_source(swapper, pictures)
    save_source(tmp_path / "saved.npz", source, swapper)
    again = load_source(swapper, [tmp_path / "saved.npz"])
    np.testing.assert_array_equal(again.embedding, source.embedding)
    np.testing.assert_array_equal(again.face, source.face)
    swapper.encoder.dim = 5
    with pytest.raises(UserError, match="holds a 3-d embedding of mean_color, this swapper takes 5-d"):
        load_source(swapper, [tmp_path / "saved.npz"])


def test_a_saved_embedding_of_another_encoder(swapper, pictures, tmp_path):
    """Though it is as long, its numbers mean something else."""
    save_source(tmp_path / "saved.npz", load_source(swapper, pictures), swapper)
    swapper.encoder.name = "other_color"
    with pytest.raises(UserError, match="of mean_color, this swapper takes 3-d ones of other_color"):
        load_source(swapper, [tmp_path / "saved.npz"])


BAD = {
    "of another length": {"embedding": np.zeros(5, np.float32)},
    "a single number": {"embedding": np.float32(1)},
    "not finite": {"embedding": np.float32([1, np.nan, 1])},
    "complex": {"embedding": np.ones(3, np.complex64)},
    "objects": {"embedding": np.array([{}, {}, {}], object)},
    "no picture": {"face": np.zeros((8, 8), np.uint8)},
    "an empty picture": {"face": np.zeros((0, 0, 3), np.uint8)},
}


@pytest.mark.parametrize("what", BAD)
def test_a_saved_embedding_that_is_none(swapper, tmp_path, what):
    good = {"embedding": np.ones(3, np.float32), "face": np.zeros((8, 8, 3), np.uint8), "encoder": "mean_color"}
    np.savez(tmp_path / "saved.npz", **{**good, **BAD[what]})
    with pytest.raises(UserError, match=r"saved\.npz"):
        load_source(swapper, [tmp_path / "saved.npz"])


def test_a_saved_embedding_that_is_damaged(swapper, pictures, tmp_path):
    path = tmp_path / "saved.npz"
    save_source(path, load_source(swapper, pictures), swapper)
    whole = path.read_bytes()
    with open(path, "wb") as file:
        np.save(file, np.ones(3, np.float32))
    for content in (whole[: len(whole) // 2], whole[:100] + bytes(60) + whole[160:], path.read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read the saved embedding .*saved\.npz"):
            load_source(swapper, [path])


def test_what_is_no_source(swapper, pictures, tmp_path):
    (tmp_path / "broken.npz").write_text("no array")
    with pytest.raises(UserError, match=r"cannot read the saved embedding .*broken\.npz"):
        load_source(swapper, [tmp_path / "broken.npz"])
    with pytest.raises(UserError, match="stands alone"):
        load_source(swapper, [*pictures, tmp_path / "broken.npz"])
    write_image(tmp_path / "empty.png", np.zeros((60, 60, 3), np.uint8))
    with pytest.raises(UserError, match=r"empty\.png: there is no face"):
        load_source(swapper, [*pictures, tmp_path / "empty.png"])
    with pytest.raises(UserError, match=r"ends in \.npz"):
        save_source(tmp_path / "saved.json", load_source(swapper, pictures), swapper)


class TestPairs:
    def test_texts(self):
        pairs = read_pairs(["ann.jpg=bob.png", "cleo.jpg=dan.npz"])
        assert [tuple(map(str, pair)) for pair in pairs] == [("ann.jpg", "bob.png"), ("cleo.jpg", "dan.npz")]
        with pytest.raises(UserError, match=r"person\.jpg=source\.jpg"):
            read_pairs(["ann.jpg"])
        with pytest.raises(UserError, match=r"two sources"):
            read_pairs(["ann.jpg=bob.png", "./ann.jpg=dan.npz"])

    def test_a_folder_with_the_names_of_simswap(self, tmp_path):
        for name in ("SRC_02.png", "SRC_01.jpg", "DST_01.png", "DST_02.npz", "notes.txt"):
            (tmp_path / name).write_text("")
        pairs = read_pairs([str(tmp_path)])
        assert [(a.name, b.name) for a, b in pairs] == [("SRC_01.jpg", "DST_01.png"), ("SRC_02.png", "DST_02.npz")]
        (tmp_path / "src_02.jpg").write_text("")
        with pytest.raises(UserError, match=r"both SRC_02\.png and src_02\.jpg"):
            read_pairs([str(tmp_path)])
        (tmp_path / "src_02.jpg").unlink()
        (tmp_path / "DST_02.npz").unlink()
        with pytest.raises(UserError, match="no partner of 02"):
            read_pairs([str(tmp_path)])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(4), "no direction of 3 numbers"),
        (np.ones(3, int), "no direction of 3 numbers"),
        (np.array([0.0, np.nan, 1.0]), "is not finite"),
        (np.zeros(3), "or zero"),
        (np.array([print]), "cannot read the attribute's direction"),
    ],
)
def test_a_direction_is_numbers_that_point_somewhere(tmp_path, array, message):
    np.save(tmp_path / "beard.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_direction(tmp_path / "beard.npy", 3)
    np.save(tmp_path / "beard.npy", np.float32([[1, 2, 3]]))
    np.testing.assert_array_equal(read_direction(tmp_path / "beard.npy", 3), [1, 2, 3])
    with pytest.raises(UserError, match="cannot read"):
        read_direction(tmp_path / "absent.npy", 3)
