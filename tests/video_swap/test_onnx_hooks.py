"""Networks that people bring: a face-parsing one as a mask, a face restorer; and files that are neither."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_videos import SIZE, similarity

from facedancer.core.alignment import compose_affine, invert_affine, transform_points
from facedancer.core.console import UserError
from facedancer.video_swap.blending import paste_face
from facedancer.video_swap.enhancing import Enhancer
from facedancer.video_swap.masks import FaceMasks, soft_box
from facedancer.video_swap.pasting import PasteOptions

CROP = 64


def save_network(path, nodes, output_shape, constants=(), input_shape=(1, 3, CROP, CROP)):
    given = helper.make_tensor_value_info("picture", TensorProto.FLOAT, input_shape)
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, output_shape)
    arrays = [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants]
    graph = helper.make_graph(nodes, "network", [given], [made], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return str(path)


def parser_network(path, classes=19):
    """Says "skin" where red is strong, "hair" elsewhere: a 1×1 convolution of the normalized picture."""
    kernel = np.zeros((classes, 3, 1, 1))
    kernel[1, 0], kernel[17 % classes, 0] = 30, -30
    node = helper.make_node("Conv", ["picture", "kernel"], ["out"])
    return save_network(path, [node], (1, classes, CROP, CROP), [("kernel", kernel)])


def restorer_network(path, scale=1.0, factor=1.0):
    """Multiplies the picture in [-1, 1] by a number, and enlarges it."""
    nodes = [helper.make_node("Mul", ["picture", "scale"], ["scaled"])]
    nodes.append(helper.make_node("Resize", ["scaled", "", "factors"], ["out"], mode="linear"))
    side = int(CROP * factor)
    return save_network(path, nodes, (1, 3, side, side), [("scale", scale), ("factors", [1, 1, factor, factor])])


def smooth_frame():
    y, x = np.mgrid[:200, :240]
    return np.rint(127.5 + 100 * np.stack([np.sin(x / 23), np.cos(y / 19), np.sin((x + y) / 29)], -1)).astype(np.uint8)


class TestParsing:
    @pytest.mark.parametrize("shrink_factor", [1.0, 0.86])
    def test_masks_lie_where_the_frame_says(self, tmp_path, shrink_factor):
        frame = np.zeros((200, 240, 3), np.uint8)
        frame[:, 130:] = 255  # skin at the right of a line through the face
        to_aligned = similarity(3.0, 0.2, (120, 100))
        masks = FaceMasks((parser_network(tmp_path / "parser.onnx"),), SIZE, shrink_factor)
        (mask,) = masks([frame], [to_aligned])
        assert mask.shape == (SIZE, SIZE, 1) and mask.dtype == np.float32
        points = transform_points(to_aligned, [[145, 80], [142, 110], [118, 80], [115, 110]]).round().astype(int)
        found = mask[points[:, 1], points[:, 0], 0]
        assert (found[:2] > 0.9).all() and (found[2:] < 0.1).all()

    def test_goes_with_the_box(self, tmp_path):
        frame, to_aligned = np.full((200, 240, 3), 255, np.uint8), similarity(3.0, 0.2, (120, 100))
        (mask,) = FaceMasks(("box", parser_network(tmp_path / "parser.onnx")), SIZE)([frame], [to_aligned])
        np.testing.assert_allclose(mask, soft_box(SIZE), atol=0.01)

    def test_other_classes_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="the classes of CelebAMask-HQ"):
            FaceMasks((parser_network(tmp_path / "parser.onnx", classes=11),), SIZE)


class TestEnhancer:
    @pytest.mark.parametrize("factor", [1.0, 2.0])
    def test_one_that_changes_nothing_leaves_the_frame(self, tmp_path, factor):
        enhancer = Enhancer(restorer_network(tmp_path / "same.onnx", factor=factor), SIZE, 1.0)
        frame, to_aligned = smooth_frame(), similarity(2.0, 0.2, (120, 100))
        before = frame.copy()
        assert enhancer.enhance(frame, soft_box(SIZE), to_aligned) is not None
        error = np.abs(frame.astype(int) - before)
        # Half a pixel's error would be three gray levels here.
        assert error.max() <= 2 and error.mean() < 0.2

    def test_its_picture_comes_under_the_mask(self, tmp_path):
        enhancer = Enhancer(restorer_network(tmp_path / "inverse.onnx", scale=-1.0), SIZE, 1.0)
        to_aligned, before = similarity(3.0, 0.2, (120, 100)), smooth_frame()
        frame = before.copy()
        x1, y1, x2, y2 = enhancer.enhance(frame, soft_box(SIZE), to_aligned)
        alpha = cv2.warpAffine(soft_box(SIZE), invert_affine(to_aligned), (240, 200))
        inside = alpha > 0.99
        error = np.abs(frame[inside].astype(int) - (255 - before[inside]))
        assert error.max() <= 6 and error.mean() < 1.5
        changed = (frame != before).any(-1)
        assert not changed[cv2.dilate(alpha, np.ones((9, 9))) == 0].any()  # three pixels of the frame are one of a face
        changed[y1:y2, x1:x2] = False
        assert not changed.any()

    def test_a_smaller_picture_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="S at least 64"):
            Enhancer(restorer_network(tmp_path / "small.onnx", factor=0.5), SIZE, 1.0)

    def test_the_swapper_runs_it_on_each_face(self, tmp_path, make_swapper):
        places = similarity(1.2, 0.1, (50, 60)), similarity(1.2, 0.0, (110, 60))
        frame = np.full((120, 160, 3), (90, 90, 80), np.uint8)
        frame[0, 0, 0] = 2
        red = np.array([1.0, -1, -1], np.float32)
        inverse = restorer_network(tmp_path / "inverse.onnx", scale=-1.0)
        (result,) = make_swapper(*places, paste=PasteOptions(enhancer=inverse)).swap_frames([frame], red)
        assert len(result.regions) == 2
        for x in (50, 110):
            assert np.abs(result.image[64, x].astype(int) - (0, 255, 255)).max() <= 4


class TestFiles:
    def test_no_file(self):
        with pytest.raises(UserError, match="is not there"):
            FaceMasks(("nothing.onnx",), SIZE)

    def test_no_network(self, tmp_path):
        (tmp_path / "bad.onnx").write_bytes(b"no network")
        with pytest.raises(UserError, match="not an ONNX network"):
            FaceMasks((str(tmp_path / "bad.onnx"),), SIZE)

    def test_other_inputs(self, tmp_path):
        node = helper.make_node("Identity", ["picture"], ["out"])
        path = save_network(tmp_path / "gray.onnx", [node], (1, 1, 8, 8), input_shape=(1, 1, 8, 8))
        with pytest.raises(UserError, match="expected one input"):
            FaceMasks((path,), SIZE)

    def test_names_that_are_no_text(self, tmp_path):
        """ONNX Runtime's message names the node, and cannot be decoded."""
        node = helper.make_node("Conv", ["picture"], ["out"], name="a_name_of_text")
        path = tmp_path / "names.onnx"
        save_network(path, [node], (1, 3, CROP, CROP))
        path.write_bytes(path.read_bytes().replace(b"a_name_of_text", b"a_name_\xff\xfeof_te"[:14]))
        with pytest.raises(UserError, match="not an ONNX network"):
            Enhancer(str(path), SIZE, 1.0)

    def test_weights_in_other_files(self, tmp_path):
        path = restorer_network(tmp_path / "elsewhere.onnx")
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
        assert (tmp_path / "w").is_file()
        with pytest.raises(UserError, match="keeps weights in other files"):
            Enhancer(path, SIZE, 1.0)

    def test_a_network_that_fails_on_pictures(self, tmp_path):
        node = helper.make_node("Reshape", ["picture", "wanted"], ["out"])
        given = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ("n", 3, CROP, CROP))
        made = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        wanted = onnx.numpy_helper.from_array(np.array([7, 7]), "wanted")
        graph = helper.make_graph([node], "network", [given], [made], [wanted])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / "fails.onnx")
        with pytest.raises(UserError, match=r"fails\.onnx does not work on images|not an ONNX network"):
            Enhancer(str(tmp_path / "fails.onnx"), SIZE, 1.0)


def test_compose_affine():
    a, b = similarity(2.0, 0.3, (10, 20)), similarity(0.7, -1.0, (5, 1))
    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(
        transform_points(compose_affine(a, b), points), transform_points(a, transform_points(b, points)), atol=1e-9
    )


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_poisson_leaves_an_unchanged_face_and_takes_the_frames_colors(angle):
    frame = smooth_frame()
    to_aligned = similarity(2.0, angle, (120, 100))
    face = cv2.warpAffine(frame, to_aligned, (SIZE, SIZE), flags=cv2.INTER_AREA).astype(np.float32)
    pasted, tinted, mixed = frame.copy(), frame.copy(), frame.copy()
    mask, to_frame = soft_box(SIZE), invert_affine(to_aligned)
    paste_face(pasted, face, mask, to_frame, "poisson")
    assert np.abs(pasted.astype(int) - frame).mean() < 0.5
    paste_face(tinted, np.clip(face + 40, 0, 255), mask, to_frame, "poisson")
    paste_face(mixed, np.clip(face + 40, 0, 255), mask, to_frame)
    # A face that is too bright as a whole becomes as bright as what is about it.
    middle = np.s_[90:110, 110:130]
    error, mixed_error = (np.abs(image[middle].astype(int) - frame[middle]).mean() for image in (tinted, mixed))
    assert error < 6 and mixed_error > 25


def test_poisson_at_the_border_of_the_frame_and_on_next_to_nothing():
    face = np.full((SIZE, SIZE, 3), 90, np.float32)
    for center in [(0, 0), (239, 100), (120, 199)]:
        frame = smooth_frame()
        assert paste_face(frame, face, soft_box(SIZE), invert_affine(similarity(2.0, 0.2, center)), "poisson")
    frame, small = smooth_frame(), np.zeros((SIZE, SIZE, 1), np.float32)
    small[10, 10] = 0.4
    before = frame.copy()
    paste_face(frame, face, small, invert_affine(similarity(1.0, 0.0, (120, 100))), "poisson")
    np.testing.assert_array_equal(frame, before)
