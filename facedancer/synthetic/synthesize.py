"""Writes a data set of people who do not exist, with everything that is known of every picture.

    facedancer synthesize --output world --identities 24 --per_identity 12
    facedancer crop_align --data_dir world/pictures --target_dir world/aligned

    world/
      pictures/00003/07.png     a folder for each identity, as `crop_align` takes them
      masks/00003/07.png        of each pixel the number of its label in `truth.LABELS`; 8 bits
      truth.jsonl               a line for each picture: file, mask, landmarks, pose, expression, the draws' numbers
      swaps/00003/              with --swaps K: a scene of identity 3, 0.png of itself, 1.png to K.png of K others, the
      swaps.jsonl               rest unchanged: of any two, each is the other's true swap; a line for each scene
      portraits/00003.png       and a portrait of each identity, the source of those swaps; likewise
      portraits.jsonl
      settings.json             what was asked for; the same again goes on where a run was stopped

The pictures of a seed are the same, byte by byte, for any number of workers.
"""

import argparse
import functools
import os
from pathlib import Path

from PIL import Image

from facedancer.core.console import UserError, command, progress
from facedancer.core.files import LOCK_NAME, Journal, atomic_path, only_writer, write_json
from facedancer.core.marking import RENDERED, write_marked_image
from facedancer.core.schemas import WorldPicture, WorldScene, read_json
from facedancer.synthetic.workers import Workers

SETTINGS_NAME, TRUTH_NAME = "settings.json", "truth.jsonl"
SWAPS_NAME, PORTRAITS_NAME = "swaps.jsonl", "portraits.jsonl"
# Numbers of draws: seed, identity and picture in one. Pictures of one seed never share a number with another's.
IDENTITIES_A_SEED, PICTURES_AN_IDENTITY = 1_000_000, 1_000


def draws_of(seed, identity_index, picture_index):
    """Returns the (identity, person, scene) of a picture of a data set."""
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.scenes import draw_scene

    number = seed * IDENTITIES_A_SEED + identity_index
    return draw_identity(number), draw_person(number), draw_scene(number * PICTURES_AN_IDENTITY + picture_index)


def folder_of(identity):
    """Returns the name of the folder of an identity's pictures, from its draw's number."""
    return f"{identity % IDENTITIES_A_SEED:05d}"


def portrait_draws(seed, identity_index):
    """Returns the (identity, person, scene) of a portrait of somebody of a data set."""
    from facedancer.synthetic.scenes import portrait_scene

    identity, person, scene = draws_of(seed, identity_index, PICTURES_AN_IDENTITY - 2)
    return identity, person, portrait_scene(scene.number)


def write_picture(out, size, seed, place):
    """Renders and writes one picture; `place` is (identity, picture). Returns its line of `truth.jsonl`."""
    from facedancer.synthetic.render import render

    identity_index, picture_index = place
    face = render(*draws_of(seed, identity_index, picture_index), size=size)
    name = f"{identity_index:05d}/{picture_index:02d}.png"
    _write(Path(out, "pictures", name), Path(out, "masks", name), face)
    return {"file": f"pictures/{name}", "mask": f"masks/{name}", "size": size, **face.record()}


def write_scene(out, size, seed, identities, swaps, scene_index):
    """Renders and writes the true swaps of a scene; returns its line of `swaps.jsonl`.

    It is another scene than those of the data set. The others in it are the identities that follow.
    """
    from facedancer.synthetic.render import render

    _, person, scene = draws_of(seed, scene_index, PICTURES_AN_IDENTITY - 1)
    pictures = []
    for number in range(swaps + 1):
        identity = portrait_draws(seed, (scene_index + number) % identities)[0]
        name = f"swaps/{scene_index:05d}/{number}"
        pictures.append(_write_face(out, name, render(identity, person, scene, size=size)))
    return {"size": size, "pictures": pictures}


def write_portrait(out, size, seed, identity_index):
    """Renders and writes a portrait of an identity; returns its line of `portraits.jsonl`."""
    from facedancer.synthetic.render import render

    face = render(*portrait_draws(seed, identity_index), size=size)
    return {"size": size, **_write_face(out, f"portraits/{identity_index:05d}", face)}


def _write_face(out, name, face):
    """Writes a picture and its mask beside it; returns what is known of it."""
    files = {"file": f"{name}.png", "mask": f"{name}_mask.png"}
    _write(Path(out, files["file"]), Path(out, files["mask"]), face)
    return {**files, **face.record()}


def _write(picture, mask, face):
    with atomic_path(mask) as temporary:
        Image.fromarray(face.labels).save(temporary)
    write_marked_image(picture, face.image, RENDERED)


def synthesize(out, identities, per_identity, size=256, seed=0, swaps=0, workers=None):
    """Writes a data set (see the module's docstring); goes on where an earlier run into `out` stopped.

    Args:
        out: folder.
        identities: how many.
        per_identity: pictures of each.
        size: side of the pictures in pixels.
        seed: of everything.
        swaps: others whose true swaps are written of a scene of each identity, 0 for no such scenes.
        workers: processes, by default as many as there are processors.

    Returns:
        how many pictures are there.

    Raises:
        UserError: if the settings make no sense, or `out` holds something else.
    """
    _check(identities, per_identity, size, seed, swaps)
    with only_writer(out):
        return _synthesize_all(out, identities, per_identity, size, seed, swaps, workers)


def _synthesize_all(out, identities, per_identity, size, seed, swaps, workers):
    """Does the work of `synthesize`, which alone may write to the folder."""
    settings = {"identities": identities, "per_identity": per_identity, "size": size, "seed": seed}
    settings["swaps"] = swaps
    _check_out(Path(out), settings)
    places = [(i, k) for i in range(identities) for k in range(per_identity)]
    works = [(TRUTH_NAME, "pictures", functools.partial(write_picture, os.fspath(out), size, seed), places)]
    if swaps:
        common, everybody = (os.fspath(out), size, seed), list(range(identities))
        works.append((PORTRAITS_NAME, "portraits", functools.partial(write_portrait, *common), everybody))
        works.append((SWAPS_NAME, "swaps", functools.partial(write_scene, *common, identities, swaps), everybody))
    count = 0
    with Workers(workers) as pool:
        for journal_name, what, write, todo in works:
            kind = WorldScene if journal_name == SWAPS_NAME else WorldPicture
            with Journal(Path(out, journal_name), keep=_files, kind=kind) as journal:
                done = len(journal.entries)
                lost = [item for item, files in zip(todo, journal.entries, strict=False) if not _all_there(out, files)]
                with progress(total=len(todo), initial=done - len(lost), desc=what, unit="picture") as bar:
                    for _ in pool.in_order(write, lost):
                        bar.update()
                    for line in pool.in_order(write, todo[done:]):
                        journal.append(line)
                        bar.update()
            count += len(todo) * (swaps + 1 if journal_name == SWAPS_NAME else 1)
    return count


def _files(line):
    """The files that a line of `truth.jsonl`, `portraits.jsonl` or `swaps.jsonl` names."""
    parts = line.pictures if isinstance(line, WorldScene) else [line]
    return [name or "" for part in parts for name in (part.file, part.mask)]


def _all_there(out, files):
    return all(Path(out, name).is_file() for name in files)


def _check(identities, per_identity, size, seed, swaps):
    if not 1 <= identities < IDENTITIES_A_SEED:
        raise UserError(f"--identities {identities}: give at least 1")
    if not 1 <= per_identity <= PICTURES_AN_IDENTITY - 2:
        raise UserError(f"--per_identity {per_identity}: give 1 to {PICTURES_AN_IDENTITY - 2}")
    if not 16 <= size <= 2048:
        raise UserError(f"--size {size}: give 16 to 2048 pixels")
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed {seed}: give a number from 0 to {2**31 - 1}")
    if not 0 <= swaps < identities:
        raise UserError(f"--swaps {swaps}: give a number from 0 to below that of the identities")


def _check_out(out, settings):
    """Keeps the settings beside the pictures, and refuses a folder that was made with others."""
    path = out / SETTINGS_NAME
    if path.is_file():
        try:
            found = read_json(path, dict)
        except UserError as error:
            raise UserError(f"{error}; give another --output, or remove the folder") from None
        if found != settings:
            raise UserError(f"{out} was made with other settings ({found}); give the same, or another --output")
    elif {found.name for found in out.iterdir()} != {LOCK_NAME}:
        raise UserError(f"{out} is not empty and holds no {SETTINGS_NAME}; give another --output")
    else:
        write_json(path, settings)
    for path in out.rglob(".partial-*"):
        path.unlink()  # a killed run was writing it


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer synthesize",
        description="Renders a data set of people who do not exist, with landmarks, masks and true swaps.",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="output folder; run again to resume")
    parser.add_argument("--identities", type=int, default=24, metavar="N", help="number of people (default: 24)")
    parser.add_argument("--per_identity", type=int, default=12, metavar="N", help="images per person (default: 12)")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="side of an image in pixels (default: 256)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument(
        "--swaps", type=int, default=0, metavar="N", help="true swaps per person, with this many others (default: 0)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU core)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: give at least 1")
    count = synthesize(args.output, args.identities, args.per_identity, args.size, args.seed, args.swaps, args.workers)
    print(f"{args.output}: {count} pictures of {args.identities} people, {TRUTH_NAME} says what they show")
