"""Renders people: draws in, `SyntheticFace` out.

    face = render(draw_identity(1), draw_person(1), draw_scene(7), size=256)

The picture is rendered at twice its size and reduced. The identity affects only the face: hair, occluders, background
and camera do not depend on it, so that two identities on the same person in the same scene differ only in the face and
its shadow.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from facedancer.synthetic import truth
from facedancer.synthetic.backgrounds import paint_background
from facedancer.synthetic.compiled import compiled
from facedancer.synthetic.development import develop, exposure_of
from facedancer.synthetic.draws import Identity, Person
from facedancer.synthetic.facial_hair import beard_cover, grow_beard, grow_brows, grow_lashes
from facedancer.synthetic.geometry import moved, vertex_normals
from facedancer.synthetic.hair import grow_hair
from facedancer.synthetic.hair_styles import scalp_density
from facedancer.synthetic.head import INSIDE_MOUTH, PIVOT, TEETH, TONGUE, fit_sphere, load_head
from facedancer.synthetic.lighting import LIT_POINTS, light_directions, light_up, lit_points, shade_hair
from facedancer.synthetic.occluders import build_things, loose_strands
from facedancer.synthetic.rasterize import FAR, draw_mesh, draw_strands
from facedancer.synthetic.relief import fold_depths, fold_slopes
from facedancer.synthetic.shape import bend_neck, neck_rotations, neutral_vertices, pose_head
from facedancer.synthetic.skin import COLORS, STRENGTHS, Look, shade, vertex_table
from facedancer.synthetic.truth import SyntheticFace, five_of

OVERSAMPLING = 2
# The center of the resting face, which the camera looks at, and its distance from the world's origin.
FACE_CENTER = np.array([0.0, 7.12, 1.0])
_CUTS = {"crew": 0, "v": 1, "shirt": 2}
_PATTERNS = {"plain": 0, "stripes": 1, "checks": 2}
# Moves the inside of the mouth back, decimeters; otherwise it would poke through the lips of some faces.
MOUTH_DEPTH = 0.2
_NO_HAIR = np.zeros((0, 4, 3), np.float32)


def render(identity, person, scene, size=256):
    """Renders one picture of one person.

    Args:
        identity: `draws.Identity`.
        person: `draws.Person`; someone else's gives the true result of a swap.
        scene: `scenes.Scene`.
        size: side of the square picture in pixels.

    Returns:
        `truth.SyntheticFace`.
    """
    return render_people([(identity, person, scene)], size, size)[0]


def render_people(people, height, width):
    """Renders one picture of several people.

    Args:
        people: list of (identity, person, scene); light, camera, background and quality are the first scene's, and
            people stand at their scenes' `place`.
        height, width: of the picture in pixels.

    Returns:
        list of `truth.SyntheticFace`, one a person, with the same image and labels.
    """
    setting = people[0][2]
    view = _View(setting.camera, height * OVERSAMPLING, width * OVERSAMPLING)
    image = paint_background(
        setting.background, setting.background_seed, setting.light.brightness, view.height, view.width
    )
    labels = np.zeros((view.height, view.width), np.uint8)
    depth = np.full((view.height, view.width), FAR)
    points = [_draw_person(identity, person, scene, setting, view, image, labels, depth)
              for identity, person, scene in people]  # fmt: skip
    reduced = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    exposure = setting.camera.exposure * exposure_of(setting.light, people[0][1].skin)
    developed = develop(reduced, exposure, setting.quality, height, setting.number)
    small_labels = np.ascontiguousarray(labels[::OVERSAMPLING, ::OVERSAMPLING])
    faces = []
    for (identity, person, scene), (screen, facing) in zip(people, points, strict=True):
        landmarks = (screen[:, :2] / OVERSAMPLING - 0.5).astype(np.float32)
        faces.append(
            SyntheticFace(
                image=developed,
                landmarks=five_of(landmarks),
                landmarks_68=landmarks,
                visible_68=_visible(screen, facing, depth),
                labels=small_labels,
                pose=scene.pose,
                expression=scene.expression,
                gaze=scene.gaze,
                identity_number=identity.number,
                person_number=person.number,
                scene_number=scene.number,
            )
        )
    return faces


class _View:
    """The projection of world points into the (oversampled) picture."""

    def __init__(self, camera, height, width):
        self.height, self.width = height, width
        self.eye = FACE_CENTER + np.array([*camera.center, camera.distance])
        self.focal = height / 2 / camera.half_height * camera.distance

    def project(self, points):
        """Projects (…, 3) world points to (…, 3) float32 screen points."""
        arrows = points - self.eye.astype(np.float32)
        depth = -arrows[..., 2:]
        scale = np.float32(self.focal) / depth
        middle = np.array([self.width / 2, self.height / 2], np.float32)
        return np.concatenate([middle + arrows[..., :2] * scale * np.array([1, -1], np.float32), depth], -1)

    def pixels(self, length):
        """Returns roughly how many pixels a length in decimeters spans."""
        return length * self.focal / (self.eye[2] - FACE_CENTER[2])


def _draw_person(identity, person, scene, setting, view, image, labels, depth):
    """Draws one person; returns the landmarks' screen points (68, 3) and how much they face the camera (68,)."""
    head = load_head()
    grown = _growth(_Pair(identity, person))
    posed = pose_head(identity, person, scene.expression, scene.pose, scene.gaze)
    place = np.array(scene.place, np.float32)
    vertices = posed.vertices + place
    things = [(thing, moved(thing.vertices, posed.rotation, posed.shift + place)) for thing in build_things(scene)]
    hair, hair_world = grown["hair"], _NO_HAIR
    if hair is not None:
        hair_world = np.empty_like(hair.points)
        bend_neck(hair.points.reshape(-1, 3), grown["hair_follow"], neck_rotations(scene.pose), PIVOT,
                  hair_world.reshape(-1, 3))  # fmt: skip
        hair_world += place
        outward = np.ascontiguousarray(hair.outward @ posed.rotation.T.astype(np.float32))
    else:
        outward = np.zeros((0, 3), np.float32)
    directions, radiances = light_directions(setting.light)
    casting = [(points - place, thing.triangles) for thing, points in things if thing.clear < 0.5]
    irradiance, reached, hair_light = light_up(
        directions, radiances, posed.vertices, posed.normals, len(head.vertices), head.triangles, casting,
        hair_world - place, outward,
    )  # fmt: skip

    triangle_of_pixel = np.full(depth.shape, -1, np.int32)
    weights = np.zeros((*depth.shape, 2), np.float32)
    screen = view.project(vertices)
    screen[:, 2] += MOUTH_DEPTH * _inside_mouth()
    draw_mesh(screen, head.fine_triangles, depth, triangle_of_pixel, weights)
    table = vertex_table(
        rest=head.fine_rest,
        world=vertices,
        normal=posed.normals,
        light=_scattered(irradiance),
        reached=reached,
        face=head.fine_face_weight,
        scalp=grown["scalp"],
        beard=grown["beard_cover"],
        masks=head.fine_masks,
    )
    look = _look(identity, person, scene, setting, posed, view, place)
    shade(table, head.fine_triangles, head.fine_parts, look, triangle_of_pixel, weights, image, labels)

    lobes = setting.light.lobes
    ordinary = [pair for pair in things if pair[0].clear == 0]
    for thing, points in ordinary:
        _draw_thing(thing, points, directions, radiances, lobes, view, image, labels, depth)
    coarse_light = irradiance[: len(head.vertices)]
    for name, label, opacity in (("brows", truth.BROWS, 0.7), ("beard", truth.BEARD, 0.8), ("lashes", -1, 0.8)):
        strands = grown[name]
        if strands is None:
            continue
        triangles = head.lash_triangles if name == "lashes" else head.triangles
        world, light = _on_skin(strands, triangles, posed, coarse_light)
        _draw_hair(
            world + place, light, strands, lobes, view, 0.35, label, opacity, image, labels, depth, posed.rotation
        )
    if hair is not None:
        _draw_hair(
            hair_world, hair_light, hair, lobes, view, 1.0, truth.HAIR, 1.0, image, labels, depth, posed.rotation
        )
    loose = None if person.hair.style in ("bald", "buzz") else loose_strands(scene)
    if loose is not None:
        _draw_loose(loose, person, posed, place, directions, radiances, view, image, labels, depth)
    for thing, points in things:
        if thing.clear > 0:
            _draw_thing(thing, points, directions, radiances, lobes, view, image, labels, depth)

    fine_landmarks = head.landmarks
    screen = view.project(vertices[fine_landmarks])
    towards = view.eye.astype(np.float32) - vertices[fine_landmarks]
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    return screen, (posed.normals[fine_landmarks] * towards).sum(1)


@dataclass(frozen=True)
class _Pair:
    """An identity on a person, as a cache key hashed by their numbers."""

    identity: Identity
    person: Person

    def __hash__(self):
        return hash((self.identity.number, self.person.number))


@functools.lru_cache(maxsize=8)
def _growth(pair):
    """Returns what does not depend on the scene: all hair, and where it grows."""
    identity, person = pair.identity, pair.person
    head = load_head()
    neutral = neutral_vertices(identity, person)
    centers = [fit_sphere(neutral[own])[0] for own in head.eyes]
    hair = grow_hair(person)
    bald = hair is None
    return {
        "hair": hair,
        "hair_follow": None if bald else _hair_follow(hair.points.reshape(-1, 3)),
        "brows": grow_brows(identity, neutral),
        "beard": grow_beard(person, neutral),
        "lashes": grow_lashes(identity, neutral, centers),
        "scalp": scalp_density(person.hair, head.fine_rest, head.fine_masks).astype(np.float32),
        "beard_cover": (
            np.zeros(len(head.fine_rest), np.float32)
            if person.beard == "none"
            else beard_cover(person.beard, head.fine_rest, head.fine_masks).astype(np.float32)
        ),
    }


def _hair_follow(points):
    """Hair on the shoulders stays when the head turns; hair at the neck follows partly."""
    height = np.clip((points[:, 1] - 5.5) / 1.3, 0, 1)
    return (height * height * (3 - 2 * height)).astype(np.float32)


def _look(identity, person, scene, setting, posed, view, place):
    """Gathers colors and strengths for the shader."""
    brow, garment = identity.brow, scene.garment
    cover = {"bald": 0.10, "buzz": 0.75, "receding": 0.55}.get(person.hair.style, 0.85)
    beard = {"none": 0.0, "stubble": 0.42, "short": 0.55, "full": 0.7, "goatee": 0.6, "moustache": 0.6}[person.beard]
    above = np.array([[0.0, 1.0, 0.0, 0.6, *setting.light.above]])
    colors = {
        "skin": person.skin,
        "complexion": identity.complexion,
        "lip_tint": identity.lip_tint,
        "iris": identity.iris,
        "brow": brow.color,
        "hair": person.hair.color,
        "cloth": garment.color,
        "cloth_second": garment.second_color,
    }
    strengths = {
        "oiliness": person.oiliness,
        "pupil": scene.pupil,
        "cut": _CUTS[garment.cut],
        "pattern": _PATTERNS[garment.pattern],
        "scalp_cover": cover,
        "beard_cover": beard,
    }
    return Look(
        colors=np.array([colors[name] for name in COLORS]),
        strengths=np.array([float(strengths.get(name, getattr(identity, name, 0.0))) for name in STRENGTHS]),
        texture=np.array([identity.texture, person.texture]),
        brow=np.array([brow.height, brow.arch, brow.thickness, brow.gap, brow.length, brow.density]),
        folds=fold_depths(identity.wrinkles, scene.expression),
        slopes=fold_slopes(),
        rotation=posed.rotation,
        eye_centers=_resting_eyes(),
        lid_planes=_lid_planes(posed, place),
        lobes=np.concatenate([setting.light.lobes, above]),
        around=setting.light.brightness,
        camera=view.eye,
    )


@functools.cache
def _inside_mouth():
    """Returns how far each vertex of the subdivided mesh is inside the mouth, (N,), 0 to 1: lining, teeth, tongue."""
    head = load_head()
    inside = head.fine_masks[:, INSIDE_MOUTH].copy()
    inside[head.fine_triangles[np.isin(head.fine_parts, (TEETH, TONGUE))]] = 1
    return inside


@functools.cache
def _resting_eyes():
    head = load_head()
    return np.array([fit_sphere(head.vertices[own])[0] for own in head.eyes])


def _lid_planes(posed, place):
    """Returns each eye's plane at the upper lid's rim, left eye first, (2, 4): normal and distance from 0."""
    head = load_head()
    rims = ((43, 44), (37, 38))  # iBUG's points, the person's left eye first
    planes = []
    for rim in rims:
        normal = posed.rotation[:, 1]
        height = float(((posed.vertices[head.landmarks[list(rim)]] + place) @ normal).mean())
        planes.append([*normal, height])
    return np.array(planes)


def _scattered(irradiance):
    """Diffuses light over the mesh like subsurface scattering, red farthest (weights after Jensen et al., 2001)."""
    head = load_head()
    rings, current = {}, irradiance
    for ring in range(1, 11):
        current = head.smooth(current)
        rings[ring] = current
    red = 0.30 * rings[1][:, 0] + 0.35 * rings[4][:, 0] + 0.35 * rings[10][:, 0]
    green = 0.62 * rings[1][:, 1] + 0.28 * rings[4][:, 1] + 0.10 * rings[10][:, 1]
    blue = 0.80 * rings[1][:, 2] + 0.20 * rings[4][:, 2]
    return np.ascontiguousarray(np.stack([red, green, blue], 1), np.float32)


def _on_skin(strands, triangles, posed, coarse_light):
    """Returns the strands in the world, moved with the skin that they grow on, and their light (n, LIT_POINTS, 3)."""
    corners = triangles[strands.triangles]
    shift = ((posed.expressed - posed.neutral)[corners] * strands.weights[:, :, None]).sum(1)
    world = moved(strands.points + shift[:, None].astype(np.float32), posed.rotation, posed.shift)
    light = (coarse_light[corners] * strands.weights[:, :, None]).sum(1)
    return world, np.repeat(light[:, None].astype(np.float32), LIT_POINTS, axis=1)


def _draw_hair(world, light, strands, lobes, view, shine, label, opacity, image, labels, depth, turn):
    colors = np.empty_like(world)
    outward = np.ascontiguousarray(strands.outward @ turn.T.astype(np.float32))
    shade_hair(world, light, lit_points(world.shape[1]), outward, strands.colors, lobes, view.eye, shine, colors)
    draw_strands(
        view.project(world), colors, view.pixels(strands.thickness), opacity, label, 0.02, depth, image, labels
    )


def _draw_loose(loose, person, posed, place, directions, radiances, view, image, labels, depth):
    """Draws loose strands in the person's hair color, lit from all sides."""
    world = moved(loose, posed.rotation, posed.shift + place)
    light = np.array(person.hair.color) * radiances.sum(0) * 0.30
    colors = np.broadcast_to(light.astype(np.float32), world.shape).copy()
    draw_strands(view.project(world), colors, view.pixels(0.012), 0.9, truth.OCCLUDER, 0.0, depth, image, labels)


def _draw_thing(thing, points, directions, radiances, lobes, view, image, labels, depth):
    """Draws an occluder, lit at its vertices."""
    normals = vertex_normals(points, thing.triangles).astype(np.float64)
    towards = view.eye - points
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    # Both sides of a thin object are lit.
    normals *= np.where((normals * towards).sum(1, keepdims=True) < 0, -1.0, 1.0)
    cosine = np.maximum(np.einsum("nk,dk->nd", normals, directions), 0)
    light = np.einsum("nd,dk->nk", cosine, radiances)
    mirrored = 2 * (normals * towards).sum(1, keepdims=True) * normals - towards
    gloss = np.zeros_like(light)
    for lobe in lobes:
        sharp = lobe[3] * 60 / (lobe[3] + 60)
        gloss += np.exp(sharp * (np.einsum("nk,k->n", mirrored, lobe[:3]) - 1))[:, None] * lobe[4:] * sharp / lobe[3]
    colors = (thing.color * light + 0.05 * thing.shine * gloss).astype(np.float32)
    triangle_of_pixel = np.full(depth.shape, -1, np.int32)
    weights = np.zeros((*depth.shape, 2), np.float32)
    draw_mesh(view.project(points), thing.triangles, depth, triangle_of_pixel, weights)
    _fill(thing.triangles, colors, thing.clear, thing.label, triangle_of_pixel, weights, image, labels)


@compiled
def _fill(triangles, colors, clear, label, triangle_of_pixel, weights, image, labels):
    """Fills an occluder's pixels with its vertices' colors; mostly transparent pixels keep the label behind them."""
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            t = triangle_of_pixel[row, column]
            if t < 0:
                continue
            a, b, c = triangles[t]
            wb, wc = weights[row, column]
            for k in range(3):
                color = (1 - wb - wc) * colors[a, k] + wb * colors[b, k] + wc * colors[c, k]
                image[row, column, k] = image[row, column, k] * clear + color
            if clear < 0.5:
                labels[row, column] = label


def _visible(screen, facing, depth):
    """Returns which landmarks (68,) are in the picture, facing the camera and unoccluded."""
    column, row = np.floor(screen[:, :2]).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < depth.shape[1]) & (row < depth.shape[0])
    column, row = np.clip(column, 0, depth.shape[1] - 1), np.clip(row, 0, depth.shape[0] - 1)
    return inside & (facing > 0.0) & (screen[:, 2] < depth[row, column] + 0.10)
