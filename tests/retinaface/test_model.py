import numpy as np
import pytest

from facedancer.retinaface.anchors import build_anchors
from facedancer.retinaface.model import MOBILENET025, RetinaFaceConfig, build_retinaface

RESNET50 = RetinaFaceConfig(
    "resnet50", ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"), 256, True, 1.0, (-124.0, -117.0, -104.0)
)
MOBILENET_V2 = RetinaFaceConfig(
    "mobilenet_v2", ("block_6_expand", "block_13_expand", "block_16_expand"), 64, True, 1 / 127.5, (-1.0, -1.0, -1.0)
)


@pytest.mark.parametrize("config", [MOBILENET025, MOBILENET_V2, RESNET50], ids=lambda config: config.backbone)
def test_every_anchor_gets_its_outputs(config):
    model = build_retinaface(config)
    assert model.name == f"retinaface_{config.backbone}"
    for height, width in ((32, 32), (64, 96)):
        outputs = model(np.zeros((2, height, width, 3), np.float32))
        count = len(build_anchors(height, width))
        assert {name: tuple(value.shape) for name, value in outputs.items()} == {
            "boxes": (2, count, 4),
            "landmarks": (2, count, 10),
            "scores": (2, count, 2),
        }
        np.testing.assert_allclose(np.sum(outputs["scores"], axis=-1), 1, rtol=1e-5)


def test_the_embedded_network_has_the_published_number_of_parameters():
    assert build_retinaface(MOBILENET025).count_params() == 423_264


def test_outputs_stand_in_the_order_of_the_anchors():
    """A change at one place of the picture moves the outputs of the anchors there most, on the finest level."""
    model = build_retinaface(MOBILENET025)
    picture = np.full((1, 256, 320, 3), 128, np.float32)
    changed = picture.copy()
    changed[:, 192:208, 64:80] = 255
    difference = np.abs(np.subtract(model(picture)["boxes"], model(changed)["boxes"])).max(-1)[0]
    finest = build_anchors(256, 320)[:, 2] <= 32
    x, y = build_anchors(256, 320)[np.argmax(np.where(finest, difference, 0)), :2]
    assert abs(x - 72) <= 16
    assert abs(y - 200) <= 16
