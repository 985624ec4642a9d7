"""What the swap commands share: their flags, and the setup before the work."""

import argparse
import functools
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facedancer.core import flags
from facedancer.core.card import CARD_NAME
from facedancer.core.console import UserError, add_boolean
from facedancer.core.devices import add_device_flag, computes_bfloat16, select_device
from facedancer.core.weights import find_weights
from facedancer.media.sequences import files_of
from facedancer.models.families import decoders_of, move_embedding
from facedancer.video_swap.choosing import IDENTITY_THRESHOLD, choose_tracks, match_tracks
from facedancer.video_swap.engines import AUTO, ENGINES, PRECISIONS, choose_engine
from facedancer.video_swap.pasting import PasteOptions
from facedancer.video_swap.sources import (
    Source,
    load_source,
    read_direction,
    read_pairs,
    read_picture,
    save_source,
)
from facedancer.video_swap.strangers import Cast, load_strangers
from facedancer.video_swap.swapper import FaceSwapper, PlacedFace, find_decoder
from facedancer.video_swap.tracking import Watcher, build_tracks

# Exit statuses: no face was found to swap; some of many inputs were swapped.
NOTHING_SWAPPED, PARTLY_SWAPPED = 3, 4


class NothingSwapped(Exception):
    """There was no face to swap, so nothing is written. Its text says where none was found."""


def network_files(args):
    """Returns the files of the networks that the flags name, as far as they are no names of embedded ones."""
    given = [args.retina_path, args.arcface_path, args.enhancer, *args.mask]
    card = Path(args.facedancer_path).with_name(CARD_NAME)
    return [args.facedancer_path, *(path for path in [card, *filter(None, given)] if Path(path).is_file())]


def add_flags(parser, output, det_size=None):
    """Adds the flags that the commands with one source share; `output` and `det_size` are defaults."""
    add_swapper_flags(parser, output, det_size)
    parser.add_argument(
        "--swap_source",
        nargs="+",
        metavar="FILE",
        help="source face: one image, several (their identities are averaged), or a saved embedding, .npz",
    )
    parser.add_argument("--decoder", metavar="NAME", help="person to swap in, for a model with one decoder per person")
    parser.add_argument(
        "--anonymize",
        type=_seed,
        nargs="?",
        const=0,
        metavar="SEED",
        help="make everybody unrecognizable: each person gets the identity of another one who does not exist; the seed"
        " draws whose (default: 0)",
    )
    add_boolean(
        parser,
        "--align_source",
        True,
        "find and align the face in the source; False if it is already an aligned face (default: True)",
    )
    parser.add_argument(
        "--faces",
        type=_faces,
        default="all",
        metavar="WHICH",
        help="faces to swap: all, largest, or a number n for the n-th from the left (default: all)",
    )
    parser.add_argument("--reference", metavar="IMAGE", help="swap only the person in this image")
    parser.add_argument(
        "--map",
        nargs="+",
        metavar="PERSON=SOURCE",
        help="a source for each of several people: person.jpg=source.jpg, or a folder of SRC_01.jpg, DST_01.jpg;"
        " person.jpg=NAME for a model with decoders",
    )
    parser.add_argument(
        "--identity_threshold",
        type=_cosine,
        default=IDENTITY_THRESHOLD,
        metavar="X",
        help="minimum cosine of two identity embeddings to count as the same person (default: %(default)s)",
    )
    parser.add_argument(
        "--face_attribute_direction",
        metavar="FILE",
        help=".npy file of a direction to move the source's identity along, for example toward a beard",
    )
    parser.add_argument(
        "--face_attribute_steps",
        type=float,
        default=0.0,
        metavar="X",
        help="how far to move, as a multiple of the embedding's length; negative moves the opposite way (default: 0)",
    )
    parser.add_argument("--save_embedding", metavar="FILE", help="save the source's embedding to this .npz file")
    add_boolean(
        parser, "--compare", False, "show target and result side by side, source at the bottom left (default: False)"
    )


def add_swapper_flags(parser, output, det_size=None):
    """Adds the flags that say how faces are swapped, not whose; `output` is the default of `--output`."""
    parser.add_argument(
        "--facedancer_path", type=find_weights, default="lite", metavar="FILE",
        help="exported swap model, .h5 or .keras (default: lite, the included model)",
    )  # fmt: skip
    parser.add_argument("--output", default=output, metavar="FILE", help="file to write (default: %(default)s)")
    parser.add_argument(
        "--retina_path", metavar="FILE", help="weights of the face detector (default: retinaface_mobilenet025)"
    )
    parser.add_argument(
        "--det_size",
        type=_side,
        default=det_size,
        metavar="N",
        help="longer side, in pixels, of the image given to the detector; larger finds smaller faces but is slower"
        f" (default: {det_size or 'half of the longer side of the image, at least 640'})",
    )
    parser.add_argument(
        "--arcface_path",
        metavar="FILE",
        help="weights of the identity encoder (default: the one named by the model's card)",
    )
    parser.add_argument(
        "--pixel_boost",
        type=int,
        choices=(1, 2, 4),
        default=1,
        help="factor on the network's resolution; the time grows with its square (default: 1)",
    )
    parser.add_argument(
        "--engine",
        choices=(AUTO, *ENGINES),
        default=AUTO,
        help="inference engine for the swap model; auto takes openvino for videos on a CPU if it is installed, and"
        " keras otherwise (default: auto)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="precision of the inner layers; bfloat16 is faster on hardware that supports it (default: float32)",
    )
    add_device_flag(parser)
    flags.add_flags(parser.add_argument_group("pasting"), PasteOptions)
    parser.set_defaults(**flags.flag_values(PasteOptions()))


def check_not_input(output, *inputs):
    """Raises `UserError` if writing `output` would replace an input, or an image of an input sequence."""
    replaced, read = (
        {(status.st_dev, status.st_ino) for path in paths for status in map(os.stat, files_of(path))}
        for paths in ([output], inputs)
    )
    if replaced & read:
        raise UserError(f"{output} would replace an input; give it another name")


@dataclass(frozen=True, eq=False)
class Plan:
    """Which faces get which source.

    Attributes:
        sources: list of `Source`.
        people: (m, dim) identity embeddings of the people who get them, one each; None if every face chosen by `faces`
            gets the first source.
        faces: as for `choose_tracks`.
        threshold: as for `match_tracks`.
        cast: `Cast` of the sources, if they are strangers who take the places of the chosen faces; else None.
    """

    sources: list
    people: np.ndarray | None = None
    faces: str | int = "all"
    threshold: float = IDENTITY_THRESHOLD
    cast: Cast | None = None

    @property
    def needs_identities(self):
        """Whether tracks need embeddings."""
        return self.people is not None or self.cast is not None

    def sources_of(self, tracks):
        """Returns `{track's index: Source}` of the tracks to swap."""
        if self.people is None:
            found = dict.fromkeys(sorted(choose_tracks(tracks, self.faces)), 0)
        else:
            found = match_tracks(tracks, self.people, self.threshold)
        if self.cast:
            return self.cast.strangers_of({track: tracks[track] for track in found})
        return {track: self.sources[number] for track, number in found.items()}


def input_paths(args):
    """Returns the files that the flags name, other than the target.

    Raises:
        UserError: if flags contradict each other, a file is missing or unreadable, or --save_embedding would replace
            one.
    """
    decoders = decoders_of(args.facedancer_path)
    _check_source(args, decoders)
    paste_options(args)
    if args.map and (args.reference or args.faces != "all" or args.save_embedding):
        raise UserError("--map says whom to swap; it does not go with --reference, --faces or --save_embedding")
    if args.reference and args.faces != "all":
        raise UserError("--reference says whom to swap; it does not go with --faces")
    pairs = read_pairs(args.map) if args.map else []
    for _, name in pairs if decoders else ():
        find_decoder(args.facedancer_path, decoders, str(name))
    pairs = [path for pair in pairs for path in (pair[:1] if decoders else pair)]
    paths = [*(args.swap_source or ()), *pairs, *([args.reference] if args.reference else ())]
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"cannot read the picture {path}: there is no such file")
        if Path(path).suffix.lower() != ".npz":
            read_picture(path)
    if args.face_attribute_direction:
        if not Path(args.face_attribute_direction).is_file():
            raise UserError(f"--face_attribute_direction {args.face_attribute_direction}: there is no such file")
        paths.append(args.face_attribute_direction)
    if args.save_embedding:
        check_not_input(args.save_embedding, *paths)
    return paths


def paste_options(args):
    """Returns the `PasteOptions` of the flags. Raises `UserError` for an unknown mask."""
    return PasteOptions(**{item.name: getattr(args, item.name) for item in flags.flags_of(PasteOptions)})


def _check_source(args, decoders):
    """Raises `UserError` unless the flags name the source exactly once, in the way that the swapper needs."""
    path = args.facedancer_path
    if decoders and args.swap_source:
        known = ", ".join(decoders)
        raise UserError(f"{path} has a decoder per person and takes no source image: give --decoder, one of {known}")
    if args.decoder and not decoders:
        raise UserError(f"{path} has no decoders: give --swap_source, an image")
    if args.anonymize is not None:
        given = [name for name in ("map", "decoder", "swap_source", "save_embedding") if getattr(args, name)]
        if given:
            raise UserError(f"--anonymize draws the sources; it does not go with --{given[0]}")
    elif bool(args.map) == bool(args.decoder or args.swap_source):
        known = f"--decoder, one of {', '.join(decoders)}" if decoders else "--swap_source, --anonymize"
        raise UserError(f"give {known}, or --map for many people")
    if args.decoder:
        find_decoder(path, decoders, args.decoder)
        if args.save_embedding:
            raise UserError("--save_embedding: a decoder takes no embedding")
    if decoders and args.face_attribute_direction:
        raise UserError("--face_attribute_direction: a decoder takes no embedding to move")


def load_swapper(args, decoder=None):
    """Prints the device and returns the `FaceSwapper` that the flags of `add_swapper_flags` describe."""
    device = select_device(args.device_id)
    print(f"device: {device}", flush=True)
    if args.precision == "bfloat16" and device == "CPU" and not computes_bfloat16():
        print("warning: this processor has no bfloat16 instructions, so float32 is faster", file=sys.stderr)
    return FaceSwapper.from_export(
        args.facedancer_path,
        args.retina_path,
        args.arcface_path,
        choose_engine(args.engine, device, hasattr(args, "vid_path")),
        args.precision,
        decoder,
        args.det_size,
        pixel_boost=args.pixel_boost,
        paste=paste_options(args),
    )


def prepare(args):
    """Prints the device, loads the networks, and reads the sources.

    Args:
        args: parsed flags of `add_flags`.

    Returns:
        `(FaceSwapper, Plan)`.

    Raises:
        UserError: if a file is missing or damaged, or does not fit the swapper.
    """
    pairs = read_pairs(args.map) if args.map else []
    decoders = decoders_of(args.facedancer_path)
    swapper = load_swapper(args, args.decoder or (str(pairs[0][1]) if decoders and pairs else None))
    if pairs:
        people = [load_source(swapper, [person]).embedding for person, _ in pairs]
        if decoders:
            sources = [Source(None, None, swapper.find_decoder(str(name))) for _, name in pairs]
        else:
            sources = [load_source(swapper, [source], not args.align_source) for _, source in pairs]
    else:
        people = [load_source(swapper, [args.reference]).embedding] if args.reference else None
        if args.anonymize is not None:
            sources = load_strangers(swapper)
        elif args.decoder:
            sources = [Source(None, None, swapper.find_decoder(args.decoder))]
        else:
            sources = [load_source(swapper, args.swap_source, not args.align_source)]
        if args.save_embedding:
            save_source(args.save_embedding, sources[0], swapper)
    if args.face_attribute_direction:
        direction = read_direction(args.face_attribute_direction, swapper.encoder.dim)
        move = functools.partial(
            move_embedding, args.facedancer_path, direction=direction, steps=args.face_attribute_steps
        )
        sources = [replace(source, embedding=move(source.embedding)) for source in sources]
    people = None if people is None else np.stack(people)
    cast = None if args.anonymize is None else Cast(sources, args.identity_threshold, args.anonymize)
    plan = Plan(sources, people, args.faces, args.identity_threshold, cast)
    if plan.needs_identities:
        print(f"identity threshold: {args.identity_threshold:g} (cosine of embeddings of {swapper.encoder.name})")
    return swapper, plan


def place_faces(plan, tracks, count):
    """Returns the list of `PlacedFace`s of each of `count` frames, by a `Plan`."""
    placed = [[] for _ in range(count)]
    for index, source in plan.sources_of(tracks).items():
        track = tracks[index]
        for frame, landmarks, weight in zip(range(track.start, track.end), track.landmarks, track.weights, strict=True):
            weight = 1.0 if plan.cast else float(weight)  # a fade would show the person who must not be recognized
            if weight > 0:
                placed[frame].append(PlacedFace(landmarks, source.given, weight))
    return placed


def find_faces(swapper, plan, image):
    """Returns the tracks of the faces in one image, (H, W, 3) uint8 RGB, with identities if the `Plan` needs them."""
    embed = swapper.embed_placed if plan.needs_identities else None
    return build_tracks(Watcher(swapper.detector, embed=embed, settle=swapper.settle).detect([image], 0), times=[0])


def swap_picture(swapper, plan, image, tracks=None):
    """Swaps the faces of one image, (H, W, 3) uint8 RGB, by a `Plan`; returns a `SwappedFrame`.

    Args:
        tracks: from `find_faces`, to reuse them if an image is swapped several times.
    """
    tracks = find_faces(swapper, plan, image) if tracks is None else tracks
    sources = plan.sources_of(tracks)
    placed = [PlacedFace(tracks[i].landmarks[0], source.given) for i, source in sources.items()]
    return swapper.swap_placed([image], [placed])[0]


def _seed(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a seed, a whole number from 0 on, got {text}")
    return int(text)


def _cosine(text):
    value = float(text)
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a cosine, from -1 to 1, got {text}")
    return value


def _side(text):
    if not text.isdigit() or not 64 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"expected a number of pixels from 64 to 8192, got {text}")
    return int(text)


def _faces(text):
    if text in ("all", "largest"):
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected all, largest or a number from 1 on, got {text}")
    return int(text)
