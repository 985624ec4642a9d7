"""Source identities: one image, the mean of several, one between two, or a saved embedding; and who gets which."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path, list_files
from facedancer.core.images import ImageError, read_image
from facedancer.core.numpy_files import read_npy, read_npz


@dataclass(frozen=True, eq=False)
class Source:
    """An identity.

    Attributes:
        embedding: (dim,) float32; None if a decoder shows the person.
        face: (S, S, 3) uint8 RGB, an aligned face to display, or None.
        decoder: index of the decoder that shows the person, or None.
        coefficients: (c,) float32, coefficients of the face's shape if the swapper needs them; else None.
    """

    embedding: np.ndarray | None
    face: np.ndarray | None
    decoder: int | None = None
    coefficients: np.ndarray | None = None

    @property
    def given(self):
        """What the network takes of it; see `PlacedFace.source`."""
        if self.decoder is not None:
            return self.decoder
        if self.coefficients is None:
            return self.embedding
        return np.concatenate([self.embedding, self.coefficients])


MIXES = ("all", "identity", "3d")


def source_of(swapper, faces):
    """Returns the `Source` of one person's aligned faces, (n, S, S, 3) uint8 RGB; of several, the mean.

    Args:
        swapper: `FaceSwapper`.
    """
    embeddings = swapper.encoder(faces)
    # The mean direction, at the mean length.
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    mean = (embeddings / np.maximum(lengths, 1e-9)).mean(0)
    mean *= lengths.mean() / max(np.linalg.norm(mean), 1e-9)
    embedding = embeddings[0] if len(faces) == 1 else mean.astype(np.float32)
    coefficients = None if swapper.shapes is None else swapper.shapes(faces).mean(0)
    return Source(embedding, faces[0], coefficients=coefficients)


def mix_sources(kind, share, a, b):
    """Returns a `Source` interpolated between two; at share 1 it is `a`.

    Args:
        kind: one of `MIXES`: interpolate embedding and coefficients ("all"), only the embedding ("identity"), or only
            the coefficients ("3d"); what is not interpolated is `a`'s.
        share: weight of `a`, 0 to 1.
        a, b: `Source`s for the same swapper.

    Raises:
        UserError: if only coefficients should be interpolated and the swapper takes none.
    """
    if kind not in MIXES:
        raise ValueError(f"no mix is named {kind}; known are {', '.join(MIXES)}")
    if kind == "3d" and a.coefficients is None:
        raise UserError("3d: this swapper takes no coefficients of a face's shape; mix identity")
    if kind != "3d":
        # Directions and lengths are interpolated separately, as lengths differ between images.
        lengths = [np.linalg.norm(source.embedding) for source in (a, b)]
        mixed = share * a.embedding / lengths[0] + (1 - share) * b.embedding / lengths[1]
        mixed *= (share * lengths[0] + (1 - share) * lengths[1]) / max(np.linalg.norm(mixed), 1e-9)
        a = replace(a, embedding=mixed.astype(np.float32))
    if kind != "identity" and a.coefficients is not None:
        mixed = share * a.coefficients + (1 - share) * b.coefficients
        a = replace(a, coefficients=mixed.astype(np.float32))
    return a


def load_source(swapper, paths, is_aligned=False):
    """Returns the `Source` of some images, the mean of their embeddings, or of one saved `.npz`.

    Args:
        swapper: `FaceSwapper`.
        paths: list of files.
        is_aligned: whether the images are already aligned faces.

    Raises:
        UserError: if a file cannot be read, has no face, or was made with another encoder.
    """
    if any(Path(path).suffix.lower() == ".npz" for path in paths):
        if len(paths) > 1:
            raise UserError(f"a saved embedding stands alone, but {len(paths)} files were given")
        return _read_saved(swapper, paths[0])
    faces = []
    for path in paths:
        try:
            faces.append(swapper.align_source(read_picture(path), is_aligned))
        except UserError as error:
            raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    return source_of(swapper, np.stack(faces))


def save_source(path, source, swapper):
    """Writes a swapper's `Source` to an `.npz` that `load_source` reads; raises `UserError` for another suffix."""
    if Path(path).suffix.lower() != ".npz":
        raise UserError(f"cannot write {path}: the name of a saved embedding ends in .npz")
    with atomic_path(path) as temporary:
        shape = {}
        if source.coefficients is not None:
            shape = {"coefficients": source.coefficients, "face_shapes": swapper.shapes.name}
        np.savez(temporary, embedding=source.embedding, face=source.face, encoder=swapper.encoder.name, **shape)


def read_direction(path, dim):
    """Reads an attribute's direction, a NumPy array (dim,).

    Raises:
        UserError: if the file is not such an array, or is zero.
    """
    try:
        direction = read_npy(path)
    except UserError as error:
        raise UserError(f"cannot read the attribute's direction {error}") from None
    if direction.dtype.kind != "f" or direction.size != dim:
        raise UserError(f"{path} holds no direction of {dim} numbers, the length of this swapper's embeddings")
    if not np.isfinite(direction).all() or not direction.any():
        raise UserError(f"{path} holds a direction that is not finite, or zero")
    return direction.reshape(dim)


def read_pairs(given):
    """Returns the pairs of `--map` as paths: `(person's image, source's file or decoder's name)`.

    Args:
        given: list of texts `person.jpg=source.jpg`, or one folder of files `SRC_01.*` (a person in the video) and
            `DST_01.*` (their source), as SimSwap names them.

    Raises:
        UserError: if a text is not a pair, a person has two sources, or a file in the folder lacks its partner.
    """
    if len(given) == 1 and Path(given[0]).is_dir():
        found = {"SRC": {}, "DST": {}}
        for path in list_files(given[0]):
            name = re.fullmatch(r"(SRC|DST)_(\w+)", path.stem, re.IGNORECASE)
            if name:
                files, key = found[name[1].upper()], name[2].lower()
                if key in files:
                    raise UserError(f"{given[0]} holds both {files[key].name} and {path.name}")
                files[key] = path
        if not found["SRC"] or found["SRC"].keys() != found["DST"].keys():
            alone = sorted(found["SRC"].keys() ^ found["DST"].keys())
            what = f"no partner of {', '.join(alone)}" if alone else "no files SRC_01.jpg, DST_01.jpg, …"
            raise UserError(f"{given[0]}: {what}")
        return [(found["SRC"][name], found["DST"][name]) for name in sorted(found["SRC"])]
    pairs = []
    for text in given:
        person, _, source = text.partition("=")
        if not person or not source:
            raise UserError(f"--map takes person.jpg=source.jpg or a folder of SRC_… and DST_… files, got {text}")
        if Path(person) in (other for other, _ in pairs):
            raise UserError(f"--map gives {person} two sources")
        pairs.append((Path(person), Path(source)))
    return pairs


def read_picture(path):
    """Reads an image as (H, W, 3) uint8 RGB. Raises `UserError`."""
    try:
        return read_image(path)
    except ImageError as error:
        raise UserError(f"cannot read the picture {path}: {error}") from None


def _read_saved(swapper, path):
    try:
        saved = read_npz(path)
    except UserError as error:
        raise UserError(f"cannot read the saved embedding {error}") from None
    if missing := [name for name in ("embedding", "face", "encoder") if name not in saved]:
        raise UserError(f"cannot read the saved embedding {path}: it lacks {missing[0]}")
    embedding, face, encoder, coefficients, face_shapes = (
        saved.get(name) for name in ("embedding", "face", "encoder", "coefficients", "face_shapes")
    )
    wanted = swapper.encoder
    if (str(encoder), embedding.shape) != (wanted.name, (wanted.dim,)):
        raise UserError(
            f"{path} holds a {'×'.join(map(str, embedding.shape))}-d embedding of {encoder}, this swapper takes"
            f" {wanted.dim}-d ones of {wanted.name}"
        )
    if embedding.dtype != np.float32 or not np.isfinite(embedding).all():
        raise UserError(f"{path} holds an embedding that is not finite float32 numbers")
    if (shapes := swapper.shapes) is None:
        coefficients = None
    elif coefficients is None or (str(face_shapes), coefficients.shape) != (shapes.name, (shapes.dim,)):
        raise UserError(
            f"{path} holds no {shapes.dim} coefficients of {shapes.name}, which this swapper takes; give the image"
        )
    elif coefficients.dtype != np.float32 or not np.isfinite(coefficients).all():
        raise UserError(f"{path} holds coefficients that are not finite float32 numbers")
    if face.dtype != np.uint8 or face.ndim != 3 or face.shape[2] != 3 or not face.size:
        raise UserError(f"{path} holds no image of a face, (S, S, 3) uint8")
    return Source(embedding, face, coefficients=coefficients)
