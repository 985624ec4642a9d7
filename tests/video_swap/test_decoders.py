"""Swapping by a decoder in place of a source: the commands, the engines, and what they say."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from drawn_faces import draw_face
from small_videos import read_clip, write_clip
from test_swap_engines import OTHERS, TOLERANCE

from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import UserError
from facedancer.core.images import read_image, write_image
from facedancer.core.weights import get_weights
from facedancer.evaluate.cases import Case
from facedancer.evaluate.swappers import Swapper, read_model_card
from facedancer.models import load_swapper
from facedancer.video_swap import FaceSwapper, batch, multi_face_single_source, swap_image
from facedancer.video_swap.engines import DecoderEngine

SIZE = 32
pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of two decoders, one that paints red and one green, a picture and a video of two people."""
    from dataclasses import asdict

    from facedancer.models.autoencoder import Config, build_networks, build_swapper

    folder = tmp_path_factory.mktemp("decoders")
    for name in ("retinaface_mobilenet025", "dlib_resnet"):
        get_weights(name)
    keras.utils.set_random_seed(0)
    config = Config(
        image_size=SIZE, init_dim=4, code_dim=8, code_width=8, widths=(8, 8, 8, 4), coverage=1.0, people=("ann", "ben")
    )
    networks = build_networks(config)
    for number, color in enumerate(([6, -6, -6], [-6, 6, -6])):
        layer = networks[f"decoder{number}"].get_layer(f"decoder{number}_conv")
        layer.set_weights([layer.get_weights()[0], np.float32(color)])
    build_swapper(networks).save(folder / "people.h5")
    card = ExportCard(
        "autoencoder", SIZE, None, identity_encoder="dlib_resnet", network=asdict(config), needs="decoder",
        decoders=config.people,
    )  # fmt: skip
    write_card(folder, card)
    two = np.concatenate([draw_face(1, 160), draw_face(2, 160)], axis=1)
    write_image(folder / "two.png", two)
    write_image(folder / "person.png", draw_face(2, 160, variation=1))
    write_clip(folder / "video.mp4", np.stack([two] * 4), sound=0)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns its exit status and what it said."""

    def run(command, *flags):
        monkeypatch.chdir(tmp_path)
        status = command.main(["--facedancer_path", str(folder / "people.h5"), *flags])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def is_painted(image, channel, side):
    """Whether the middle of the face at one side of the picture has a color, of which `ann` is red and `ben` green."""
    face = image[75:95, 70:90] if side == "left" else image[75:95, 230:250]
    color = face.mean((0, 1))
    return color[channel] > 200 and np.delete(color, channel).max() < 60


def test_a_picture_and_many_people(run, folder, tmp_path):
    flags = ("--img_path", str(folder / "two.png"), "--output", "out.png", "--pixel_boost", "2", "--compare")
    status, said = run(swap_image, *flags, "--decoder", "ben")
    assert status == 0, said
    image = read_image(tmp_path / "out.png")[:, 320:]
    assert is_painted(image, 1, "left") and is_painted(image, 1, "right")
    pair = f"{folder / 'person.png'}=ann"
    status, said = run(swap_image, "--img_path", str(folder / "two.png"), "--output", "out.png", "--map", pair)
    assert status == 0 and "identity threshold" in said, said
    image = read_image(tmp_path / "out.png")
    assert is_painted(image, 0, "right") and not is_painted(image, 0, "left")


def test_a_video_and_a_batch(run, folder, tmp_path, monkeypatch, capsys):
    flags = ("--vid_path", str(folder / "video.mp4"), "--mask", "hull", "--reference", str(folder / "person.png"))
    status, said = run(multi_face_single_source, *flags, "--decoder", "ann", "--output", "out.mp4")
    assert status == 0 and "4 frames, 4 faces swapped" in said, said
    assert all(is_painted(frame, 0, "right") for frame in read_clip(tmp_path / "out.mp4")[0])
    job = {"facedancer_path": str(folder / "people.h5"), "img_path": str(folder / "two.png"), "output": "batch.png"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps({**job, "decoder": "cleo"}))
    assert batch.main(["jobs.jsonl"]) == 2
    assert "no decoder named cleo; known are ann, ben" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "give --decoder, one of ann, ben, or --map for many people"),
        (("--decoder", "cleo"), "has no decoder named cleo; known are ann, ben"),
        (("--swap_source", "a.jpg"), "no source image: give --decoder, one of ann, ben"),
        (("--map", "a.jpg=cleo"), "has no decoder named cleo; known are ann, ben"),
        (("--decoder", "ann", "--save_embedding", "a.npz"), "a decoder takes no embedding"),
    ],
)
def test_whose_face_must_be_clear(run, folder, flags, message):
    status, said = run(swap_image, "--img_path", str(folder / "two.png"), *flags)
    assert status == 2 and message in said


@pytest.mark.parametrize("name", ["keras", *OTHERS])
def test_engines_agree(folder, name):
    path = folder / "people.h5"
    engine = DecoderEngine(path, name, "float32", 1)
    target = np.random.default_rng(0).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)
    expected = load_swapper(path).predict_on_batch(target)
    found = engine.predict_on_batch({"target": target, "decoder": np.array([1, 0, 1])})
    for row, decoder in enumerate((1, 0, 1)):
        assert np.abs(found[row] - expected[decoder][row]).max() < TOLERANCE
    assert engine.image_size == SIZE and engine.embedding_dim is None


def test_in_python(folder):
    swapper = FaceSwapper.from_export(folder / "people.h5")
    assert is_painted(swapper.swap(read_image(folder / "two.png"), "ann"), 0, "left")


def test_evaluation_goes_by_the_person_and_at_its_own_size(folder):
    path = folder / "people.h5"
    with pytest.raises(UserError, match="evaluate it with --protocol synthetic"):
        read_model_card(path)
    swapper = Swapper(path, read_model_card(path, names_people=True))
    face = draw_face(3, 2 * SIZE)
    case = Case("ben onto ann", face, face, target_person="ann", source_person="ben")
    swaps = swapper([case, case.onto_itself()])
    assert swaps.shape == (2, 2 * SIZE, 2 * SIZE, 3) and swaps.dtype == np.uint8
    assert [int(swap.mean((0, 1)).argmax()) for swap in swaps] == [1, 0]
    with pytest.raises(UserError, match="carl"):
        swapper([replace(case, source_person="carl")])
