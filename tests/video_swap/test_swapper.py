"""The swapper: which faces, in which batches, and what becomes of bad input."""

import types
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
from small_videos import SIZE, BreaksAt, KnownFaces, MeanColor, known_face, moving_frames, similarity

from facedancer.arcface_model import face_shapes
from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import UserError
from facedancer.core.weights import get_weights
from facedancer.models.facedancer import Config, build_generator
from facedancer.video_swap import FaceSwapper, engines
from facedancer.video_swap.pasting import PasteOptions
from facedancer.video_swap.swapper import PlacedFace, join_tiles, split_to_tiles

RED, GREEN = np.array([1.0, -1, -1], np.float32), np.array([-1, 1.0, -1], np.float32)


def frame_with(faces, height=120, width=160):
    """A picture of which `KnownFaces` says that it shows so many faces."""
    frame = moving_frames(1, width, height)[0]
    frame[0, 0, 0] = faces
    return frame


def plain(color, faces=1):
    """A source picture of one color."""
    picture = np.full((60, 60, 3), color, np.uint8)
    picture[0, 0, 0] = faces
    return picture


@pytest.fixture
def three(make_swapper):
    return make_swapper(
        similarity(0.8, 0.2, (40, 40)), similarity(1.2, -0.3, (110, 60)), similarity(0.5, 0.0, (50, 100))
    )


def test_every_face_gets_the_identity_and_nothing_else_changes(three):
    frame = frame_with(3)
    before = frame.copy()
    swapped = three.swap(frame, plain((250, 20, 30)))
    assert (frame == before).all()
    assert swapped.dtype == np.uint8 and swapped.shape == frame.shape
    for x, y in [(40, 42), (110, 63), (50, 101)]:
        assert np.abs(swapped[y, x].astype(int) - (250, 20, 30)).max() <= 2
    (result,) = three.swap_frames([frame], RED)
    assert len(result.regions) == 3
    changed = (result.image != frame).any(-1)
    for x1, y1, x2, y2 in result.regions:
        assert changed[y1:y2, x1:x2].mean() > 0.4
        changed[y1:y2, x1:x2] = False
    assert not changed.any()


def test_a_gray_picture_stays_gray(three):
    frame = np.repeat(frame_with(3)[..., 1:2], 3, axis=-1)
    frame[0, 0] = 3
    swapped = three.swap(frame, plain((250, 20, 30)))
    assert (swapped == swapped[..., :1]).all()
    assert np.abs(swapped[42, 40].astype(int) - 90).max() <= 2  # as bright as the color
    frame[55:60, 108:113, 2] ^= 64  # a spot of color in one face
    assert np.abs(three.swap(frame, plain((250, 20, 30)))[63, 110].astype(int) - (250, 20, 30)).max() <= 2


def test_a_face_without_numbers_is_left_as_it_was(three):
    """The others of the frame, and of the frames beside it, are swapped; nobody takes it for done."""
    frames = [frame_with(1), frame_with(3), frame_with(1)]
    whole = three.swap_frames(frames, RED)
    sound = three.model
    three.model = BreaksAt(sound, {1})
    found = three.swap_frames(frames, RED)  # the smallest face of the second frame comes after that of the first
    assert [result.is_bad for result in found] == [False, True, False]
    assert [len(result.regions) for result in found] == [1, 2, 1]
    assert (found[0].image == whole[0].image).all() and (found[2].image == whole[2].image).all()
    changed = (found[1].image != frames[1]).any(-1)
    assert not changed[101, 50] and changed[42, 40] and changed[63, 110]
    three.model = BreaksAt(sound, {2})
    with pytest.raises(UserError, match="no finite numbers"):
        three.swap(frames[1], plain((250, 20, 30)))


def test_frames_are_swapped_together_as_one_by_one(three):
    frames = [frame_with(n) for n in (0, 3, 1, 0, 2, 3, 3, 1)]
    together = three.swap_frames(frames, GREEN)
    assert [len(result.regions) for result in together] == [0, 3, 1, 0, 2, 3, 3, 1]
    for frame, result in zip(frames, together, strict=True):
        (alone,) = three.swap_frames([frame], GREEN)
        np.testing.assert_array_equal(alone.image, result.image)
    assert (together[0].image == frames[0]).all()


def test_the_network_meets_few_sizes_of_batch(three, monkeypatch):
    sizes = []
    run = three.model.predict_on_batch

    def predict_on_batch(inputs):
        sizes.append(len(inputs["target"]))
        assert inputs["target"].dtype == np.float32 and np.abs(inputs["target"]).max() <= 1
        return run(inputs)

    monkeypatch.setattr(three.model, "predict_on_batch", predict_on_batch)
    for count in range(1, 8):
        three.swap_frames([frame_with(3)] * count, RED)
    assert sum(sizes) == 3 * 28
    assert set(sizes) == {1, 2, 4, 8}


def test_the_nearer_face_lies_on_top(painter):
    far, near = similarity(0.5, 0.0, (60, 60)), similarity(1.5, 0.0, (66, 60))

    class Marked(keras.Model):
        """Paints its faces in the order in which it gets them: black, then white."""

        def predict_on_batch(self, inputs):
            return np.linspace(-1, 1, len(inputs["target"]))[:, None, None, None] + 0 * inputs["target"]

    for order in [(far, near), (near, far)]:
        swapper = FaceSwapper(Marked(), KnownFaces(*order), MeanColor(), SIZE)
        assert (swapper.swap_frames([frame_with(2)], RED)[0].image[63, 60] == 255).all()


def test_a_face_at_the_border(make_swapper):
    swapper = make_swapper(similarity(1.0, 0.0, (158, 60)))
    frame = frame_with(1)
    swapped = swapper.swap_frames([frame], RED)[0]
    assert swapped.image[62, 159].tolist() == [255, 0, 0]
    assert len(swapped.regions) == 1 and swapped.regions[0][2] == 160


def test_shrink_factor_aligns_and_masks_alike(painter):
    """The crop then shows more; the face that is pasted is the same part of the frame."""

    class Shrunk(KnownFaces):
        def detect(self, images):
            # The same landmarks in the frame, whatever the crop.
            return [[replace(known_face(similarity(1.5, 0.1, (80, 60))), score=1.0)] for _ in images]

    regions = [
        FaceSwapper(painter, Shrunk(), MeanColor(), SIZE, shrink).swap_frames([frame_with(1)], RED)[0].regions[0]
        for shrink in (1.0, 0.8)
    ]
    assert np.abs(np.subtract(*regions)).max() <= 4


def test_what_is_in_reach_is_all_that_counts(three):
    """Swapped in that part of the frame alone, faces come out as in the whole."""
    frame, size = frame_with(3, 240, 320), (320, 240)
    (faces,) = three.detector.detect([frame])
    for chosen in ([0], [1], [0, 2], []):
        placed = [PlacedFace(faces[index].landmarks, RED) for index in chosen]
        x1, y1, x2, y2 = three.reach(placed, size)
        assert (x2 - x1) * (y2 - y1) < (0.25 if chosen else 0.001) * 320 * 240
        (whole,) = three.swap_placed([frame], [placed])
        (part,) = three.swap_placed([frame[y1:y2, x1:x2]], [[face.moved(-x1, -y1) for face in placed]])
        assert part.moved(x1, y1).regions == whole.regions
        np.testing.assert_allclose(part.image, whole.image[y1:y2, x1:x2], atol=1)
        untouched = whole.image.copy()
        untouched[y1:y2, x1:x2] = frame[y1:y2, x1:x2]
        np.testing.assert_array_equal(untouched, frame)


class TestPixelBoost:
    def test_tiles_are_interleaved_and_join_again(self):
        face = np.random.default_rng(0).integers(0, 256, (4 * SIZE, 4 * SIZE, 3))
        tiles = split_to_tiles(face, 4)
        assert len(tiles) == 16 and all(tile.shape == (SIZE, SIZE, 3) for tile in tiles)
        np.testing.assert_array_equal(tiles[6], face[1::4, 2::4])
        np.testing.assert_array_equal(join_tiles(tiles, 4), face)

    def test_what_the_network_leaves_keeps_its_detail(self):
        """A face of 128 pixels with fine noise, by a network of 32 pixels that changes nothing."""

        class Same(keras.Model):
            def predict_on_batch(self, inputs):
                return inputs["target"]

        matrix = similarity(4.0, 0.0, (80, 60))
        frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8), (5, 5), 1.2)
        frame[0, 0, 0] = 1
        errors = []
        for boost in (1, 2, 4):
            swapper = FaceSwapper(Same(), KnownFaces(matrix), MeanColor(), SIZE, pixel_boost=boost)
            image = swapper.swap_frames([frame], RED)[0].image
            errors.append(np.abs(image.astype(int) - frame)[50:90, 50:110].mean())
        assert errors[0] > 1.7 * errors[1] and errors[1] > 1.7 * errors[2] and errors[2] < 2


class TestSource:
    def test_without_a_face(self, three):
        with pytest.raises(UserError, match="no face"):
            three.swap(frame_with(1), plain((1, 2, 3), faces=0))

    def test_takes_the_largest_face(self, three):
        source = frame_with(3)
        np.testing.assert_array_equal(three.align_source(source).shape, (SIZE, SIZE, 3))
        largest = FaceSwapper(three.model, KnownFaces(three.detector.matrices[1]), MeanColor(), SIZE)
        np.testing.assert_array_equal(three.align_source(source), largest.align_source(frame_with(1)))

    def test_aligned_already(self, three):
        source = moving_frames(1, 128, 128)[0]
        face = three.align_source(source, is_aligned=True)
        assert face.shape == (SIZE, SIZE, 3)
        assert abs(face.mean() - source.mean()) < 3
        embedding = three.source(source, is_aligned=True).given
        np.testing.assert_allclose(embedding, three.encoder(face[None])[0])
        np.testing.assert_array_equal(three.align_source(face, is_aligned=True), face)
        with pytest.raises(UserError, match="square"):
            three.align_source(source[:64], is_aligned=True)


class TestDecoders:
    """A swapper that shows people by decoders takes their names in place of a source."""

    @pytest.fixture
    def painters(self, monkeypatch):
        """Two decoders, which paint red and green; and the numbers of those that were loaded."""
        loaded = []

        class Painter:
            image_size, batch_size = SIZE, 4

            def __init__(self, color):
                self.color = color

            def predict_on_batch(self, inputs):
                assert list(inputs) == ["target"]
                return np.zeros_like(inputs["target"]) + self.color

        def load_engine(path, name, precision, decoder):
            loaded.append(decoder)
            return Painter((RED, GREEN)[decoder])

        monkeypatch.setattr(engines, "load_engine", load_engine)
        return engines.DecoderEngine("x.h5", "keras", "float32", 1), loaded

    def test_each_face_gets_its_decoder(self, painters):
        """Of a batch with both, whatever their order; a decoder is loaded when it is first asked for."""
        engine, loaded = painters
        matrices = similarity(0.8, 0.2, (40, 40)), similarity(1.2, -0.3, (110, 60)), similarity(0.5, 0.0, (50, 100))
        swapper = FaceSwapper(engine, KnownFaces(*matrices), MeanColor(), SIZE, decoders=("ann", "ben"))
        frame = frame_with(3)
        assert swapper.swap(frame, "ben")[63, 110].tolist() == [0, 255, 0] and loaded == [1]
        places = swapper.detector.detect([frame])[0]
        placed = [PlacedFace(face.landmarks, number) for face, number in zip(places, (0, 1, 0), strict=True)]
        image = swapper.swap_placed([frame], [placed])[0].image
        assert [image[y, x].tolist() for x, y in [(40, 42), (110, 63), (50, 101)]] == [
            [255, 0, 0], [0, 255, 0], [255, 0, 0]
        ]  # fmt: skip
        assert loaded == [1, 0]

    def test_boosted_and_masked(self, painters):
        swapper = FaceSwapper(
            painters[0], KnownFaces(similarity(2.0, 0.0, (80, 60))), MeanColor(), SIZE, pixel_boost=2,
            paste=PasteOptions(mask=("hull",)), decoders=("ann", "ben"),
        )  # fmt: skip
        assert swapper.swap(frame_with(1), "ann")[66, 80].tolist() == [255, 0, 0]

    def test_an_unknown_name_is_told_the_known_ones(self, painters):
        swapper = FaceSwapper(painters[0], KnownFaces(), MeanColor(), SIZE, decoders=("ann", "ben"))
        with pytest.raises(UserError, match="no decoder named cleo; known are ann, ben"):
            swapper.swap(frame_with(0), "cleo")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "facedancer_0.h5"
    keras.utils.set_random_seed(0)
    config = Config(
        image_size=32, embedding_dim=128, mapping_depth=1, mapping_size=8, widths=(4, 8), up_types=("affa", "add"),
        discriminator_widths=(4, 8),
    )  # fmt: skip
    build_generator(config).save(path)
    get_weights("dlib_resnet")
    return path


class TestFromExport:
    def card(self, export, **changes):
        values = {"image_size": 32, "embedding_dim": 128, "shrink_factor": 0.86, "identity_encoder": "dlib_resnet"}
        write_card(export.parent, ExportCard(family="facedancer", **{**values, **changes}))

    def test_follows_the_card(self, export):
        self.card(export)
        swapper = FaceSwapper.from_export(export)
        assert (swapper.image_size, swapper.shrink_factor, swapper.encoder.name) == (32, 0.86, "dlib_resnet")
        assert swapper.source(frame_with(0, 50, 50), is_aligned=True).given.shape == (128,)

    def test_card_of_another_model(self, export):
        self.card(export, image_size=64)
        with pytest.raises(UserError, match="its card says 64"):
            FaceSwapper.from_export(export)

    def test_encoder_of_another_model(self, export):
        self.card(export)
        path = export.parent / "other.h5"
        config = Config(
            image_size=32, embedding_dim=9, mapping_depth=0, widths=(4, 8), up_types=("no_skip", "add"),
            discriminator_widths=(4, 8),
        )  # fmt: skip
        build_generator(config).save(path)
        self.card(export, embedding_dim=9)
        with pytest.raises(UserError, match="takes 9-d embeddings, the identity encoder dlib_resnet gives 128-d"):
            FaceSwapper.from_export(path)

    def test_without_a_card_the_original_holds(self, export, monkeypatch):
        """Its encoder is the original's ArcFace, which cannot be fetched and is asked for by name."""
        (export.parent / "card.json").unlink(missing_ok=True)
        monkeypatch.setenv("FACEDANCER_HOME", str(export.parent))
        with pytest.raises(UserError, match=r"ArcFace-Res50\.h5 is not there"):
            FaceSwapper.from_export(export)

    def test_what_takes_a_source_has_no_decoders(self, export):
        self.card(export)
        with pytest.raises(UserError, match="has no decoders: it takes a source"):
            FaceSwapper.from_export(export, decoder="ann")

    def test_coefficients_that_the_network_does_not_take(self, export, monkeypatch):
        self.card(export, needs="coefficients", face_shapes="known")
        monkeypatch.setattr(face_shapes, "load_face_shapes", lambda *_: types.SimpleNamespace(dim=7))
        with pytest.raises(UserError, match="takes no coefficients of a face's shape, the encoder known of its card"):
            FaceSwapper.from_export(export)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"nothing\.h5"):
            FaceSwapper.from_export(tmp_path / "nothing.h5")


@pytest.mark.parametrize("scale, angle, center", [(0.5, 0.3, (90, 70)), (1.6, -0.4, (150, 20)), (3.5, 0.0, (80, 60))])
def test_a_part_of_the_frame_is_enough(make_swapper, scale, angle, center):
    """What lies beyond `reach` is neither read nor changed, whatever looks at the frame for a mask."""
    paste = PasteOptions(mask=("hull", "occlusion"), restore_eyes=True)
    swapper = make_swapper(similarity(scale, angle, center), paste=paste)
    frame = moving_frames(1, 260, 200)[0]
    placed = [PlacedFace(swapper.detector.detect([frame_with(1)])[0][0].landmarks, RED)]
    x1, y1, x2, y2 = swapper.reach(placed, (260, 200))
    (whole,) = swapper.swap_placed([frame], [placed])
    other = np.full_like(frame, 255)
    other[y1:y2, x1:x2] = frame[y1:y2, x1:x2]
    (part,) = swapper.swap_placed([other], [placed])
    np.testing.assert_array_equal(whole.image[y1:y2, x1:x2], part.image[y1:y2, x1:x2])
    assert whole.regions == part.regions
    assert (y2 - y1) * (x2 - x1) < 8 * (SIZE * scale * 1.5) ** 2
