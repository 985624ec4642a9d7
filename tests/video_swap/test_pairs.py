"""All pairs of a folder, and what lies between two sources, as a person runs them."""

import shutil

import numpy as np
import pytest
from drawn_faces import draw_face
from small_exports import write_small_export
from small_videos import read_clip

from facedancer.core.images import read_image, write_image
from facedancer.core.pictures import load_picture
from facedancer.media.contact_sheet import GAP, LINE
from facedancer.video_swap import interpolate, swap_grid, swap_image
from facedancer.video_swap.common import swap_picture

pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export, and a folder of two people."""
    folder = tmp_path_factory.mktemp("pairs")
    write_small_export(folder / "export")
    for name, number in (("ann", 1), ("ben", 5)):
        write_image(folder / "people" / f"{name}.png", draw_face(number, 256))
    return folder


def run(folder, command, output, **flags):
    flags = {"facedancer_path": folder / "export/facedancer_0.h5", "output": output, **flags}
    return command.main([word for name, value in flags.items() for word in (f"--{name}", str(value))])


def single(folder, output, target, source):
    people = folder / "people"
    assert run(folder, swap_image, output, img_path=people / target, swap_source=people / source) == 0
    return read_image(output)


def test_a_cell_is_the_single_swap_and_an_interrupted_grid_goes_on(folder, tmp_path, monkeypatch, capsys):
    swapped = []

    def interrupted(swapper, plan, *others):
        if len(swapped) == 3:
            raise KeyboardInterrupt
        swapped.append(plan)
        return swap_picture(swapper, plan, *others)

    with monkeypatch.context() as patch:
        patch.setattr(swap_grid, "swap_picture", interrupted)
        assert run(folder, swap_grid, tmp_path / "grid.png", img_dir=folder / "people") == 130
        kept = tmp_path / ".grid.png.work"
        assert sorted(path.name for path in kept.iterdir()) == ["0.png", "journal.jsonl"]
        del swapped[1:]  # two more: the second row, and nothing of the first
        assert run(folder, swap_grid, tmp_path / "grid.png", img_dir=folder / "people") == 0
    said = capsys.readouterr().out
    assert "going on after 1 rows" in said and "2 targets by 2 sources, 4 faces swapped" in said
    assert len(swapped) == 3 and not kept.exists()
    grid, side = read_image(tmp_path / "grid.png"), 256
    people = [read_image(folder / "people" / name) for name in ("ann.png", "ben.png")]

    def cell(row, column):
        y, x = LINE + GAP + row * (side + LINE + GAP), GAP + column * (side + GAP)
        return grid[y : y + side, x : x + side]

    for row in (1, 2):
        np.testing.assert_array_equal(cell(row, 0), people[row - 1])
    np.testing.assert_array_equal(cell(1, 2), single(folder, tmp_path / "one.png", "ann.png", "ben.png"))
    np.testing.assert_array_equal(cell(2, 1), single(folder, tmp_path / "two.png", "ben.png", "ann.png"))
    assert (cell(1, 2) != people[0]).any()


def test_files_without_a_face_are_named(folder, tmp_path, capsys):
    shutil.copytree(folder / "people", tmp_path / "people")
    (tmp_path / "people/notes.txt").write_text("no picture")
    write_image(tmp_path / "people/wall.png", np.full((64, 64, 3), 90, np.uint8))
    assert run(folder, swap_grid, tmp_path / "grid.png", img_dir=tmp_path / "people") == 4
    said = capsys.readouterr().out
    assert "notes.txt: not a picture" in said and "wall.png: there is no face" in said
    assert "2 targets by 2 sources, 4 faces swapped" in said
    for name in ("ann", "ben"):
        (tmp_path / f"people/{name}.png").unlink()
    assert run(folder, swap_grid, tmp_path / "none.png", img_dir=tmp_path / "people") == 3
    assert not (tmp_path / "none.png").exists()


def test_files_of_the_same_name_are_people_of_their_own(folder, tmp_path, capsys):
    for name, number in (("ann", 1), ("ben", 5), ("cleo", 2)):
        write_image(tmp_path / "people" / name / "00.png", draw_face(number, 160))
    assert run(folder, swap_grid, tmp_path / "grid.png", img_dir=tmp_path / "people") == 0
    assert "3 targets by 3 sources, 9 faces swapped" in capsys.readouterr().out


def test_interpolation_ends_at_the_single_swaps(folder, tmp_path):
    people = folder / "people"
    given = {"img_path": people / "ann.png", "swap_source": people / "ben.png"}
    assert run(folder, interpolate, tmp_path / "own.webp", **given) == 0
    assert run(folder, interpolate, tmp_path / "two.mp4", swap_source2=people / "ann.png", **given) == 0
    frames = load_picture(tmp_path / "own.webp").frames
    assert len(frames) == 21 and {frame.duration for frame in frames} == {300}
    film, _ = read_clip(tmp_path / "two.mp4")
    assert len(film) == 63
    for source, frame, filmed in (("ann.png", frames[0], film[0]), ("ben.png", frames[-1], film[-1])):
        wanted = single(folder, tmp_path / source, "ann.png", source).astype(int)
        assert np.abs(frame.colors - wanted).mean() < 4 and np.abs(filmed - wanted).mean() < 4
    assert (frames[0].colors != frames[-1].colors).any()


def test_interpolation_begins_with_each_face_itself(folder, tmp_path, capsys):
    """Also with the smaller one of two people, and a target without a face is no bad input."""
    ann, cleo = draw_face(1, 256), draw_face(2, 160)
    both = np.concatenate([ann, np.pad(cleo, ((48, 48), (0, 0), (0, 0)), "edge")], axis=1)
    for name, picture in (("both", both), ("cleo", cleo), ("none", np.full((64, 64, 3), 90, np.uint8))):
        write_image(tmp_path / f"{name}.png", picture)
    given = {"swap_source": folder / "people/ben.png", "faces": 2}
    assert run(folder, interpolate, tmp_path / "own.webp", img_path=tmp_path / "both.png", **given) == 0
    given["swap_source"] = tmp_path / "cleo.png"
    assert run(folder, swap_image, tmp_path / "one.png", img_path=tmp_path / "both.png", **given) == 0
    first = load_picture(tmp_path / "own.webp").frames[0].colors
    given["swap_source"] = folder / "people/ann.png"
    assert run(folder, swap_image, tmp_path / "other.png", img_path=tmp_path / "both.png", **given) == 0
    own, other = (
        np.abs(first.astype(int) - read_image(tmp_path / name))[:, 256:].mean() for name in ("one.png", "other.png")
    )
    assert own < other
    capsys.readouterr()
    assert run(folder, interpolate, tmp_path / "x.gif", img_path=tmp_path / "none.png", **given) == 3
    assert "no face to swap was found in" in capsys.readouterr().err


def test_shapes_are_mixed_where_the_model_has_them(folder, tmp_path, capsys):
    people = folder / "people"
    given = {"img_path": people / "ann.png", "swap_source": people / "ben.png", "interpolation": "3d"}
    assert run(folder, interpolate, tmp_path / "x.gif", **given) == 2
    assert "takes no coefficients of a face's shape" in capsys.readouterr().err
    assert run(folder, interpolate, tmp_path / "x.txt", **given) == 2
