"""Inputs for `hostile.py`: small whole files of five kinds, and mutators that know how each kind is built.

A mutated file is a function of the seed: the same kind, seed and number give the same bytes.
"""

import io
import json
import struct
import tempfile
import zlib
from pathlib import Path

import av
import numpy as np
from hostile_changes import NUMBERS, change_bytes, change_json
from hostile_weights import change_weights, whole_weights
from PIL import Image, PngImagePlugin

from facedancer.core import records
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter


class Mutator:
    """Draws mutated files of one kind.

    Args:
        kind: a name of `KINDS`.
        seed: integer.
    """

    def __init__(self, kind, seed):
        self._seed = seed
        self._wholes, self._change = KINDS[kind]
        self._wholes = self._wholes()

    def draw(self, number):
        """Returns `(suffix or name, bytes)` of the number-th file; every hundredth is whole."""
        rng = np.random.default_rng([self._seed, number])
        names = list(self._wholes)
        name = names[rng.integers(len(names))]
        content = self._wholes[name]
        if number % 100:
            return name, self._change(rng, name, content, self._wholes)
        return name, content if isinstance(content, bytes) else write_json(name, content)


# ---------------------------------------------------------------------------------------------------------- pictures


def _whole_pictures():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    picture, other = Image.fromarray(rough), Image.fromarray(255 - rough)
    animated = {"save_all": True, "append_images": [other]}
    ways = {
        "rgb.png": (picture, {"dpi": (72, 72)}), "gray.png": (picture.convert("L"), {}),
        "p.png": (picture.convert("P"), {}), "a.png": (picture.convert("RGBA"), {}), "s.png": (picture, animated),
        "deep.png": (Image.fromarray(rough[..., 0].astype(np.uint16) * 257), {}),
        "b.jpg": (picture, {"progressive": True}), "c.jpg": (picture, {"exif": _exif()}),
        "d.jpg": (picture.convert("CMYK"), {}), "e.webp": (picture, {}), "f.webp": (picture, {"lossless": True}),
        "u.webp": (picture, animated), "g.gif": (picture, {}), "t.gif": (picture, animated), "h.bmp": (picture, {}),
        "i.tif": (picture, {}), "j.tif": (picture, {"compression": "tiff_lzw"}),
        "k.tif": (picture, {"compression": "jpeg"}), "l.tif": (picture.convert("1"), {"compression": "group4"}),
        "m.jp2": (picture, {}), "n.ico": (picture, {}), "o.tga": (picture, {"compression": "tga_rle"}),
        "w.png": (picture, {"pnginfo": _chunks(gAMA=(100_000,), cHRM=_CHROMATICITIES)}),
        "x.png": (picture, {"pnginfo": _chunks(cICP=(0x0C0D0001,))}),
        "p.ppm": (picture, {}), "q.pcx": (picture, {}), "r.sgi": (picture, {}), "v.avif": (picture, {}),
    }  # fmt: skip
    wholes = {}
    for name, (image, options) in ways.items():
        file = io.BytesIO()
        image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
        wholes[name] = file.getvalue()
    return wholes


# x and y of white, red, green and blue, times 100,000: those of Display P3.
_CHROMATICITIES = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)


def _chunks(**chunks):
    """Returns a PNG's chunks of 32-bit numbers."""
    info = PngImagePlugin.PngInfo()
    for name, numbers in chunks.items():
        info.add(name.encode(), struct.pack(f">{len(numbers)}I", *numbers))
    return info


def _exif():
    tags = Image.Exif()
    tags[0x112], tags[0x11A] = 6, 72.0
    return tags.tobytes()


def _change_picture(rng, name, content, wholes):
    spare = list(wholes.values())
    if name.endswith(".png") and rng.random() < 0.7:
        return _change_png(rng, content)
    if name.endswith(".jpg") and rng.random() < 0.5:
        return _change_jpeg(rng, content)
    return change_bytes(rng, content, spare)


def _change_png(rng, content):
    """Changes chunks and writes their checksums anew, so that they are believed."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append([content[place + 4 : place + 8], content[place + 8 : place + 8 + length]])
        place += 12 + length
    for _ in range(1 + rng.integers(2)):
        index = rng.integers(len(chunks))
        way = rng.integers(5)
        if way == 0:
            chunks.insert(index, chunks[rng.integers(len(chunks))])
        elif way == 1 and len(chunks) > 1:
            del chunks[index]
        elif way == 2:
            kinds = (
                b"IHDR",
                b"PLTE",
                b"tRNS",
                b"iCCP",
                b"gAMA",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"eXIf",
                b"iTXt",
                b"zTXt",
                b"IDAT",
            )
            chunks.insert(index, [kinds[rng.integers(len(kinds))], chunks[index][1]])
        elif chunks[index][1]:
            chunks[index] = [chunks[index][0], change_bytes(rng, chunks[index][1])]
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return content[:8] + b"".join(written)


def _change_jpeg(rng, content):
    """Changes the segments before the picture's data, their lengths written anew."""
    segments, place = [], 2
    while content[place] == 0xFF and content[place + 1] != 0xDA:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segments.append([content[place + 1], content[place + 4 : place + 2 + length]])
        place += 2 + length
    index = rng.integers(len(segments))
    if rng.random() < 0.3:
        segments.insert(rng.integers(len(segments)), segments[index])
    kind, data = segments[index]
    segments[index] = [kind if rng.random() < 0.8 else int(rng.integers(0xC0, 0xF0)), change_bytes(rng, data)]
    head = b"".join(struct.pack(">BBH", 0xFF, kind, (len(data) + 2) & 0xFFFF) + data for kind, data in segments)
    return content[:2] + head + content[place:]


# ----------------------------------------------------------------------------------------------------------- records


def _face(value, suffix=".png"):
    return encode_image(np.full((16, 16, 3), value, np.uint8), suffix)


def _whole_records():
    points = np.linspace(1, 14, 10, dtype=np.float32).reshape(5, 2)
    shards = {
        "plain": [FaceRecord(_face(60 * i), f"person {i % 2}", points, f"person/{i}.png") for i in range(4)],
        "jpeg": [FaceRecord(_face(60 * i, ".jpg"), "a") for i in range(4)],
        "alone": [FaceRecord(_face(60 * i)) for i in range(3)],
        "triplets": [FaceRecord(_face(9), "a", points, "a.png", _face(70), _face(80), _face(255)) for _ in range(2)],
    }
    wholes = {}
    for name, faces in shards.items():
        file = io.BytesIO()
        for face in faces:
            RecordWriter(file).write(face)
        wholes[f"{name}.records"] = file.getvalue()
    return wholes


def _change_records(rng, name, content, wholes):
    if rng.random() < 0.2:
        return change_bytes(rng, content, list(wholes.values()))
    frames, place = [], 0
    while place < len(content):
        (length,) = struct.unpack("<Q", content[place : place + 8])
        frames.append(content[place + 12 : place + 12 + length])
        place += 16 + length
    index = rng.integers(len(frames))
    frames[index] = _change_record(rng, frames[index])
    if rng.random() < 0.2:
        frames.append(frames[rng.integers(len(frames))])
    written = []
    for data in frames:
        length = struct.pack("<Q", len(data))
        written += [length, records._masked_crc(length), data, records._masked_crc(data)]
    return b"".join(written)


def _change_record(rng, data):
    """Changes what a record holds, or how it is written, below checksums that are right."""
    way = rng.random()
    if way < 0.4:
        return change_bytes(rng, data)
    record = records.parse_record(data)
    kinds = ["face", *(name for name in ("source", "truth", "mask") if getattr(record, name) is not None)]
    field = kinds[rng.integers(len(kinds))]
    encoded = getattr(record, field)
    if way < 0.8:
        change = _change_png if encoded.startswith(b"\x89PNG") else _change_jpeg
        encoded = change(rng, encoded) if rng.random() < 0.7 else change_bytes(rng, encoded)
    else:
        encoded = (b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF")[rng.integers(6)]
    return records.encode_record(FaceRecord(**{**vars(record), field: encoded}))


# -------------------------------------------------------------------------------------------------------------- JSON

_POINTS = [[4.5, 5.0], [11.5, 5.0], [8.0, 8.0], [5.0, 12.0], [11.0, 12.0]]


def whole_json():
    """Returns `{name: value}` of small whole JSON files."""
    picture = {"file": "a/1.png", "identity": 0, "landmarks": _POINTS}
    faces = [{"file": f"{who}/{i}.png", "aligned_landmarks": _POINTS} for who in "ab" for i in (1, 2)]
    return {
        "manifest.jsonl": [{"file": "x/" + face["file"], "faces": [face]} for face in faces],
        "pairs.jsonl": [{"target": "a/1.png", "source": "b/1.png"}, {"target": "b/2.png", "source": "a/2.png"}],
        "portraits.jsonl": [picture, {**picture, "identity": 1, "file": "b/1.png"}],
        "swaps.jsonl": [{"pictures": [picture, {**picture, "identity": 1, "scene": 3, "mask": "a/2.png"}]}],
        "card.json": {
            "family": "facedancer", "image_size": 128, "embedding_dim": 128, "shrink_factor": 0.7, "step": 10,
            "identity_encoder": "dlib_resnet", "value_range": [-1.0, 1.0], "training": {"lr": 0.1}, "licence": "x",
            "files": {"a.h5": {"sha256": "00"}}, "network": {"widths": [1, 2]}, "needs": "nothing",
        },
        "settings.json": {"im_size": 16, "shrink_factor": 1.0},
        "jobs.jsonl": [{"vid_path": "a.mp4", "swap_source": ["a.jpg", "b.jpg"], "output": "b.mp4", "length": 0.5}],
        "1.json": {
            "step": 1, "config": {"family": "facedancer", "data_dir": "x", "lr": 0.1}, "data": {"shards": ["x"]},
            "files": {"gen/gen_1.h5": "00", "state/1.npz": "00"},
        },
        "best.json": {"step": 1, "score": 0.5},
        "gen.json": {"class_name": "Functional", "config": {"layers": [], "input_layers": [["a", 0, 0]]}},
        "margins.json": {"version": 1, "encoder": "tiny", "margins": {"tap0": 0.1, "tap1": 0.2}},
        "config.json": {"config": {"family": "facedancer", "preset": "lite", "lr": 0.001, "seed": 3}},
        "seen.jsonl": [
            {"frames": [{"cut": 0, "detected": 1, "landmarks": [_POINTS], "embeddings": [[1.0]], "carried": None,
                         "pts": 0}]}
        ],
    }  # fmt: skip


def write_json(name, value):
    """Returns the bytes of a value as a file of that name has them: a line each where it is of JSON lines."""
    lines = value if name.endswith(".jsonl") and isinstance(value, list) else [value]
    return "\n".join(json.dumps(line) for line in lines).encode() + b"\n"


def _change_json_file(rng, name, value, wholes):
    if rng.random() < 0.2:
        return change_bytes(rng, write_json(name, value))
    if rng.random() < 0.05:
        return (b'{"file":' if rng.random() < 0.5 else b"") + b"[" * int(rng.choice([90, 900, 100_000]))
    return write_json(name, change_json(rng, value))


# ------------------------------------------------------------------------------------------------------------ videos


def _whole_videos():
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, options in (
            ("a.mp4", "libx264", {}), ("b.mkv", "libx264", {}), ("c.ts", "mpeg2video", {}), ("d.avi", "mpeg4", {}),
            ("e.webm", "libvpx-vp9", {}), ("f.mov", "mjpeg", {}),
            ("g.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
            ("h.gif", "gif", {}), ("i.flv", "flv1", {}),
        ):  # fmt: skip
            _write_video(Path(folder, name), codec, options)
        wholes = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    wholes["j.webp"] = _whole_pictures()["u.webp"]
    return wholes


def _write_video(path, codec, options):
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 32, 24
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for number in range(8):
            picture = np.full((24, 32, 3), 30 * number, np.uint8)
            picture[:, number : number + 5] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def _change_video(rng, name, content, wholes):
    way = rng.random()
    if way < 0.03:
        texts = (
            b"ffconcat version 1.0\nfile a.mp4\n",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n",
            b"v=0\n",
        )
        return texts[rng.integers(3)]
    if way < 0.5 and name.endswith((".mp4", ".mov")):
        return _change_boxes(rng, content)
    return change_bytes(rng, content, list(wholes.values()))


def _change_boxes(rng, content):
    """Changes numbers in the boxes that say where and when frames are, or the boxes themselves."""
    kinds = (
        b"moov mvhd trak tkhd elst mdhd hdlr stsd avc1 avcC stts ctts stsc stsz stco mdat moof tfhd trun trex".split()
    )
    places = [place for kind in kinds if (place := content.find(kind)) > 0]
    content = bytearray(content)
    for _ in range(1 + rng.integers(3)):
        place = places[rng.integers(len(places))]
        offset = int(rng.choice([-4, 0, 4, 8, 12, 16, 20, 24, 28, 32]))
        number = NUMBERS[rng.integers(len(NUMBERS))] % 2**32
        content[place + offset : place + offset + 4] = struct.pack(">I", number)
    return bytes(content)


KINDS = {
    "pictures": (_whole_pictures, _change_picture),
    "records": (_whole_records, _change_records),
    "json": (whole_json, _change_json_file),
    "weights": (whole_weights, change_weights),
    "videos": (_whole_videos, _change_video),
}
