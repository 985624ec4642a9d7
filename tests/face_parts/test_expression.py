"""Expression and gaze go with what was drawn, and not with the pose or with whose face it is."""

from dataclasses import replace

import numpy as np
import pytest

from facedancer.arcface_model.face_motion import build_face_motion
from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.images import to_signed
from facedancer.core.weights import get_weights
from facedancer.face_parts import expression, pose
from facedancer.face_parts.dense_landmarks import load_mean_face
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene, with_lids

UNITS = expression.load_maps()["units"].tolist()


@pytest.fixture(scope="module", autouse=True)
def weights():
    for name in ("face_mesh", "iris"):
        get_weights(name)


def aligned(number, **changes):
    scene = replace(portrait_scene(number), **changes)
    face = render(draw_identity(number), draw_person(number), scene, size=192)
    return warp_to_aligned(face.image, align_matrix(face.landmarks, 128), 128)


def test_a_turn_changes_no_expression():
    face = load_mean_face().astype(np.float64)
    turn = np.radians(20)
    rotation = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    still, turned = expression.measure_expression(np.stack([face, 0.4 * face @ rotation.T + 7]))
    np.testing.assert_allclose(still, turned, atol=1e-6)


def test_a_smile_is_one_whoever_smiles():
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5}
    faces = np.stack([aligned(number, expression=drawn) for number in (3, 4) for drawn in ({}, smile)])
    found = expression.measure_expression(pose.find_landmarks(faces))
    smiles = found[:, UNITS.index("mouthSmileLeft")]
    assert min(smiles[1], smiles[3]) > max(smiles[0], smiles[2]) + 0.15
    assert expression.expression_distance(found[[1]], found[[3]]) < expression.expression_distance(
        found[[1]], found[[0]]
    )
    assert expression.expression_distance(found, found).max() == 0
    # The network that training looks through sees the same, from its own cut of the faces.
    motion = build_face_motion(128, 1.0)(to_signed(faces), training=False).numpy()
    apart = np.sqrt(np.mean((motion[:-1, :-3] - motion[1:, :-3]) ** 2, axis=1))
    np.testing.assert_allclose(apart, expression.expression_distance(found[:-1], found[1:]), atol=0.25)


def test_eyes_look_where_they_were_drawn_to_look():
    gazes = [(-20.0, 0.0), (20.0, 0.0), (0.0, 12.0), (0.0, -12.0)]
    faces = np.stack([aligned(5, gaze=gaze, expression=with_lids({}, gaze)) for gaze in gazes])
    found = expression.measure_gaze(faces, pose.find_landmarks(faces))
    assert found[1, 0] - found[0, 0] > 20 and found[2, 1] > found[3, 1]
    apart = expression.angle_between_gazes(np.array([[0.0, 0.0], [30.0, 0.0]]), np.array([[0.0, 25.0], [30.0, 0.0]]))
    np.testing.assert_allclose(apart, [25, 0], atol=1e-4)
