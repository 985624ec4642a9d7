"""Pictures of people who do not exist: what is said of them is what they show, and a swap changes the face alone."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from portraits import bare, portrait_of

from facedancer.synthetic import truth
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render, render_people
from facedancer.synthetic.scenes import draw_scene, portrait_scene

PYTHON = """
import hashlib, sys
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import draw_scene
for number in map(int, sys.argv[1:]):
    face = render(draw_identity(number), draw_person(number), draw_scene(number), size=48)
    content = face.image.tobytes() + face.labels.tobytes() + face.landmarks_68.tobytes()
    print(number, hashlib.sha256(content).hexdigest())
"""


def grown(mask, pixels):
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


def near(face, point, label, reach):
    """Whether a label lies within `reach` pixels of a landmark."""
    x, y = np.round(point).astype(int)
    span = face.labels[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    return (span == label).any()


def test_the_same_bytes_in_any_process_and_order():
    def run(*numbers):
        done = subprocess.run([sys.executable, "-c", PYTHON, *numbers], capture_output=True, text=True, check=True)
        return dict(line.split() for line in done.stdout.splitlines())

    there = run("3", "8", "5")
    here = {}
    for number in (5, 3, 8):
        face = render(draw_identity(number), draw_person(number), draw_scene(number), size=48)
        content = face.image.tobytes() + face.labels.tobytes() + face.landmarks_68.tobytes()
        here[str(number)] = hashlib.sha256(content).hexdigest()
    assert here == there
    assert len(set(here.values())) == 3


@pytest.mark.parametrize("size", [33, 64])
def test_shapes_and_types(size):
    face = render(draw_identity(1), draw_person(1), draw_scene(1), size=size)
    assert face.image.shape == (size, size, 3)
    assert face.image.dtype == np.uint8
    assert face.labels.shape == (size, size)
    assert face.labels.max() < len(truth.LABELS)
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks_68.shape == (68, 2)
    assert face.visible_68.dtype == bool
    assert (face.identity_number, face.person_number, face.scene_number) == (1, 1, 1)


@pytest.mark.parametrize("number", range(4))
def test_a_swap_changes_the_face_and_its_shadow_alone(number):
    source, target = draw_identity(100 + number), draw_identity(number)
    person, scene = draw_person(number), draw_scene(number)
    before, after = (render(identity, person, scene, size=128) for identity in (target, source))
    difference = np.abs(before.image.astype(int) - after.image).max(-1)
    is_face = np.isin(before.labels, truth.FACE_LABELS) | np.isin(after.labels, truth.FACE_LABELS)
    assert difference[is_face].mean() > 3
    assert after.pose == before.pose

    # Hair is thin: what is behind it shows. So the body's outline is that of the bald.
    bald = replace(bare(person), hair=replace(person.hair, style="bald"))
    body = np.zeros(is_face.shape, bool)
    for identity in (target, source):
        body |= render(identity, bald, replace(scene, occluder=None, glasses=None), size=128).labels > 0
    assert not difference[~grown(body | is_face, 4)].any()
    # On the body, beyond what the camera blurs, there is shadow only.
    shadow = difference[~grown(is_face, 6)]
    assert (shadow <= 6).mean() > 0.97
    assert np.array_equal(before.labels[~grown(is_face, 3)], after.labels[~grown(is_face, 3)])


def test_landmarks_lie_on_what_they_are_named_after(portraits):
    for face in portraits:
        reach = 3
        for eye in (slice(36, 42), slice(42, 48)):
            assert all(near(face, point, truth.EYES, reach) for point in face.landmarks_68[eye])
        assert all(near(face, point, truth.BROWS, 6) for point in face.landmarks_68[[18, 19, 20, 23, 24, 25]])
        assert all(near(face, point, truth.NOSE, reach) for point in face.landmarks_68[[27, 28, 29, 30, 31, 33, 35]])
        assert all(near(face, point, truth.LIPS, reach) for point in face.landmarks_68[48:])
        left_eye, right_eye, nose, left_corner, right_corner = face.landmarks
        assert near(face, left_eye, truth.EYES, 1)
        assert near(face, right_eye, truth.EYES, 1)
        assert face.labels[tuple(np.round(nose[::-1]).astype(int))] == truth.NOSE
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_corner[0] < nose[0] < right_corner[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_corner[1], right_corner[1])


def test_every_pixel_of_the_face_has_a_label(portraits):
    for face in portraits:
        inside = np.zeros(face.labels.shape, np.uint8)
        cv2.fillConvexPoly(inside, cv2.convexHull(face.landmarks_68.round().astype(np.int32)), 1)
        inside = cv2.erode(inside, np.ones((5, 5), np.uint8)) > 0
        assert (face.labels[inside] != truth.BACKGROUND).all()
        assert np.isin(face.labels[inside], (*truth.FACE_LABELS, truth.EARS, truth.NECK, truth.HAIR)).mean() > 0.99
        for label in (truth.SKIN, truth.EYES, truth.LIPS, truth.NOSE, truth.NECK, truth.CLOTH, truth.HAIR):
            assert (face.labels == label).any(), truth.LABELS[label]


def test_yaw_pitch_and_roll_turn_the_way_they_are_said_to():
    def nose_between_eyes(face):
        left, right, nose = face.landmarks[:3]
        across = right - left
        length = np.linalg.norm(across)
        down = np.array([-across[1], across[0]]) / length
        middle = (left + right) / 2
        return float((nose - middle) @ across / length**2), float((nose - middle) @ down / length), across

    straight = nose_between_eyes(portrait_of(2))
    right = nose_between_eyes(portrait_of(2, pose=(30.0, 0.0, 0.0)))
    up = nose_between_eyes(portrait_of(2, pose=(0.0, 20.0, 0.0)))
    tilted = nose_between_eyes(portrait_of(2, pose=(0.0, 0.0, 15.0)))
    assert right[0] > straight[0] + 0.15
    assert up[1] < straight[1] - 0.08
    angle = np.degrees(np.arctan2(-tilted[2][1], tilted[2][0]) - np.arctan2(-straight[2][1], straight[2][0]))
    assert angle == pytest.approx(15, abs=1.0)


def test_what_is_turned_away_or_hidden_is_not_visible():
    away = portrait_of(2, pose=(55.0, 0.0, 0.0))  # to the image's right: its left half stays in view
    assert away.visible_68[[1, 2, 36]].all()
    assert not away.visible_68[[14, 15, 16]].any()
    behind = portrait_of(2, occluder="cup", occluder_seed=1)
    assert (behind.labels == truth.OCCLUDER).sum() > 100
    assert not behind.visible_68[[57, 66]].any()
    assert behind.visible_68[[37, 44]].all()


def test_expressions_move_what_they_are_named_after():
    calm, open_mouth = portrait_of(2), portrait_of(2, expression={"jawOpen": 0.6})
    closed = portrait_of(2, expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})

    def gap(face, upper, lower):
        return np.linalg.norm(face.landmarks_68[upper] - face.landmarks_68[lower], axis=-1).mean()

    assert gap(open_mouth, [62], [66]) > gap(calm, [62], [66]) + 3
    assert (open_mouth.labels == truth.MOUTH).sum() > (calm.labels == truth.MOUTH).sum() + 20
    assert gap(closed, [37, 44], [41, 46]) < 0.6 * gap(calm, [37, 44], [41, 46])
    assert (closed.labels == truth.EYES).sum() < 0.3 * (calm.labels == truth.EYES).sum()


def test_the_eyes_look_where_the_gaze_says():
    def darkest(face):
        """Where the pupil is between the eye's corners, 0 to 1."""
        inner, outer = face.landmarks_68[[42, 45]]
        rows, columns = np.nonzero(face.labels == truth.EYES)
        right = columns > (face.landmarks[0, 0] + face.landmarks[1, 0]) / 2
        dark = 255.0 - face.image[rows[right], columns[right]].mean(-1)
        return ((columns[right] * dark**4).sum() / (dark**4).sum() - inner[0]) / (outer[0] - inner[0])

    left, right = (portrait_of(2, size=256, gaze=(yaw, 0.0)) for yaw in (-22.0, 22.0))
    assert darkest(right) > darkest(left) + 0.2


@pytest.mark.parametrize("occluder", ["microphone", "hand", "phone", "cup"])
def test_occluders_have_their_label(occluder):
    face = portrait_of(4, occluder=occluder, occluder_seed=3)
    assert (face.labels == truth.OCCLUDER).sum() > 30


@pytest.mark.parametrize("style", ["crop", "bald"])
def test_loose_strands_hang_where_hair_is(style):
    person = replace(draw_person(4), hair=replace(draw_person(4).hair, style=style))
    scene = replace(portrait_scene(4), occluder="strands", occluder_seed=3)
    covered = (render(draw_identity(4), person, scene, size=128).labels == truth.OCCLUDER).sum()
    assert covered > 30 if style == "crop" else covered == 0


def test_glasses_have_their_label_and_eyes_show_through():
    face = portrait_of(4, size=192, glasses=5)
    assert (face.labels == truth.GLASSES).sum() > 60
    assert (face.labels == truth.EYES).sum() > 30


def test_people_stand_side_by_side():
    wide = replace(portrait_scene(0).camera, half_height=2.2)
    people = []
    for number, x in ((0, -1.6), (1, 1.6)):
        scene = replace(portrait_scene(number), camera=wide, place=(x, 0.0, 0.0))
        people.append((draw_identity(number), bare(draw_person(number)), scene))
    left, right = render_people(people, 96, 192)
    assert left.image is right.image
    assert left.landmarks[:, 0].max() < 96 < right.landmarks[:, 0].min()
    for face in (left, right):
        assert near(face, face.landmarks[0], truth.EYES, 2)
        assert face.visible_68[[30, 36, 45]].all()


def test_landmarks_keep_their_place_at_any_size():
    small, large = portrait_of(3, size=64), portrait_of(3, size=256)
    # Pixel 0's center is at 0, so that a point's distance from the corner is its coordinate and a half.
    assert np.allclose((small.landmarks_68 + 0.5) * 4, large.landmarks_68 + 0.5, atol=1e-2)
    reduced = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(reduced - small.image).mean() < 8
