"""The records of a shard: TFRecord framing and the schema of an aligned face, without TensorFlow.

A shard is a sequence of frames `length, masked CRC of the length, data, masked CRC of the data`; the data is a
`tf.train.Example`. Its protocol-buffer encoding is written by hand here, since it is only four nested messages.
"""

import glob
import os
import re
import struct
import zlib
from dataclasses import dataclass, replace

import google_crc32c
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

# The features of a record that hold encoded pictures, PNG or JPEG.
PICTURES = ("face", "source", "truth", "mask")
# Of a picture in a record, in pixels.
MOST_SIDE = 4096


@dataclass(frozen=True)
class FaceRecord:
    """One aligned face.

    Attributes:
        face: the encoded picture's bytes.
        identity: name of the person's folder, or None (the original's records hold only `face`).
        landmarks: (5, 2) float32 on the aligned face in pixels, or None.
        name: file name inside the dataset, or None.
        source: the encoded picture of the person to swap in, or None.
        truth: the encoded true swap, `face` with the identity of `source`, or None.
        mask: encoded gray picture of the same size, 255 where a swap may change `face`; None for everywhere.
    """

    face: bytes
    identity: str | None = None
    landmarks: np.ndarray | None = None
    name: str | None = None
    source: bytes | None = None
    truth: bytes | None = None
    mask: bytes | None = None


def shard_name(data_name, data_type, index, count):
    """`vggface2_train_00003-of-00009.records` for index 3 of 10 shards."""
    return f"{data_name}_{data_type}_{index:05d}-of-{count - 1:05d}.records"


def find_shards(pattern):
    """Returns the sorted files that match a glob.

    Raises:
        UserError: if none match.
    """
    paths = sorted(path for path in glob.glob(os.fspath(pattern)) if os.path.isfile(path))
    if not paths:
        raise UserError(f"no records match {pattern}; make them with dataset/dataset_sharding.py")
    return paths


def own_shards(paths, worker):
    """Returns the shards of worker `(index, count)`.

    Raises:
        UserError: if there are fewer shards than workers.
    """
    index, count = worker
    if len(paths) < count:
        raise UserError(f"{len(paths)} shards for {count} workers; make more with dataset/dataset_sharding.py")
    return paths[index::count]


def encode_record(record):
    """Encodes a `FaceRecord` as the bytes of a `tf.train.Example`."""
    features = {"face": _bytes_feature(record.face)}
    if record.identity is not None:
        features["identity"] = _bytes_feature(record.identity.encode(errors="surrogateescape"))
    if record.landmarks is not None:
        values = np.asarray(record.landmarks, "<f4").reshape(10).tobytes()
        features["landmarks"] = _message(2, _message(1, values))  # Feature.float_list.value, packed
    if record.name is not None:
        features["name"] = _bytes_feature(record.name.encode(errors="surrogateescape"))
    for key in ("source", "truth", "mask"):
        if getattr(record, key) is not None:
            features[key] = _bytes_feature(getattr(record, key))
    entries = (_message(1, _message(1, key.encode()) + _message(2, value)) for key, value in features.items())
    return _message(1, b"".join(entries))  # Example.features


def parse_record(data):
    """Parses the bytes of a `tf.train.Example` into a `FaceRecord`. Unknown features are skipped.

    Raises:
        ValueError: if the bytes are not an Example, or have no `face`.
    """
    features = {}
    for message in _fields(data, 1):
        for entry in _fields(message, 1):
            (key,), values = _fields(entry, 1), _fields(entry, 2)
            features[key.decode()] = values[0] if values else b""
    if "face" not in features:
        raise ValueError("no feature `face`")
    if "truth" in features and "source" not in features:
        raise ValueError("`truth` without `source`")
    landmarks = features.get("landmarks")
    record = FaceRecord(
        face=_one_bytes(features["face"]),
        identity=_one_bytes(features["identity"]).decode(errors="surrogateescape") if "identity" in features else None,
        landmarks=None if landmarks is None else _floats(landmarks).reshape(5, 2),
        name=_one_bytes(features["name"]).decode(errors="surrogateescape") if "name" in features else None,
        source=_one_bytes(features["source"]) if "source" in features else None,
        truth=_one_bytes(features["truth"]) if "truth" in features else None,
        mask=_one_bytes(features["mask"]) if "mask" in features else None,
    )
    if record.landmarks is not None and not np.isfinite(record.landmarks).all():
        raise ValueError("landmarks that are no numbers")
    return record


def with_plain_pictures(record):
    """Returns a record whose pictures hold only pixels, so that every decoder gives the same result.

    Profiles, EXIF and text are removed: TensorFlow ignores them, and decoders disagree on damage in them.

    Raises:
        ValueError: if a picture is not a structurally complete PNG or JPEG, or is larger than any aligned face.
    """
    plain = {}
    for name in PICTURES:
        if (encoded := getattr(record, name)) is not None:
            plain[name], sides = _plain_picture(encoded, name)
            if not all(1 <= side <= MOST_SIDE for side in sides):
                shape = "×".join(map(str, sides))
                raise ValueError(f"its {name} is of {shape} pixels, aligned faces have up to {MOST_SIDE}")
    return replace(record, **plain)


def _plain_picture(encoded, name):
    """Returns `(bytes, sides)`."""
    if encoded.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return _plain_png(encoded), struct.unpack(">II", encoded[16:24])
    if encoded.startswith(b"\xff\xd8\xff"):
        return _plain_jpeg(encoded)
    raise ValueError(f"its {name} is neither PNG nor JPEG")


def _plain_png(encoded):
    """Returns a PNG's critical chunks, marked by a capital letter. Their checksums must be correct."""
    kept, kinds, place, kind = [encoded[:8]], [], 8, b""
    if encoded[26:28] != b"\0\0" or encoded[28:29] > b"\1":  # compression, filters; interlacing
        raise ValueError("a PNG of an unknown kind")
    while kind != b"IEND":
        kind, end = encoded[place + 4 : place + 8], place + 12 + int.from_bytes(encoded[place : place + 4], "big")
        if end > len(encoded):
            raise ValueError("a truncated PNG")
        if zlib.crc32(encoded[place + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end], "big"):
            raise ValueError(f"a PNG whose chunk at byte {place} is damaged")
        if kind[:1].isupper():
            kept.append(encoded[place:end])
            kinds.append(kind.decode(errors="replace"))
        place = end
    if not re.fullmatch(r"IHDR( PLTE)?( IDAT)+ IEND", " ".join(kinds)):
        raise ValueError("a PNG whose chunks are out of order")
    if place != len(encoded):
        raise ValueError("a PNG with something behind its end")
    return b"".join(kept)


def _plain_jpeg(encoded):
    """Returns a JPEG without its APP1 to APP13, APP15 and comments, and the sides in its frame header."""
    kept, place, sides = [encoded[:2]], 2, None
    while len(head := encoded[place : place + 9]) == 9 and head[0] == 0xFF:
        kind, end = head[1], place + 2 + int.from_bytes(head[2:4], "big")
        if kind == 0xDA and sides:
            return b"".join([*kept, encoded[place:]]), sides
        if kind in (0xDA, 0xFF) or end < place + 4:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            sides = struct.unpack(">HH", head[5:9])
        if not (0xE1 <= kind <= 0xED or kind in (0xEF, 0xFE)):
            kept.append(encoded[place:end])
        place = end
    raise ValueError("a JPEG without a frame")


def check_pixels(plain):
    """Raises `ValueError` where a plain PNG's pixels are not compressed to their end, which TensorFlow alone minds."""
    if plain.startswith(b"\xff"):
        return
    pixels, place = zlib.decompressobj(), 8
    width, height = struct.unpack(">II", plain[16:24])
    most = (height + 7) * (8 * width + 8)  # bytes, if its pixels have 64 bits and are interlaced
    while place < len(plain):
        size = int.from_bytes(plain[place : place + 4], "big")
        if plain[place + 4 : place + 8] == b"IDAT":
            try:
                pixels.decompress(plain[place + 8 : place + 8 + size], most)
            except zlib.error as error:
                raise ValueError(f"a PNG whose pixels are damaged: {error}") from None
        place += size + 12
    if not pixels.eof:
        raise ValueError("a PNG whose pixels are cut off")


class RecordWriter:
    """Writes frames to an open binary file."""

    def __init__(self, file):
        self._file = file

    def write(self, record):
        write_frame(self._file, encode_record(record))


def write_frame(file, data):
    """Writes bytes to an open binary file as a TFRecord frame: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    file.write(b"".join((length, _masked_crc(length), data, _masked_crc(data))))


def read_records(path):
    """Yields the `FaceRecord`s of one shard.

    Raises:
        UserError: for a truncated or damaged record, with file and position.
    """
    return (record for _, record in _read_with_places(path))


def name_damage(paths, check):
    """Finds the first damaged record, after a reader failed on one without naming it.

    Args:
        paths: of shards.
        check: function of a picture's bytes that raises `ValueError` if the reader cannot decode them.

    Raises:
        UserError: if there is one, with file and position.
    """
    for path in paths:
        for place, record in _read_with_places(path):
            try:
                plain = with_plain_pictures(record)
                for name in PICTURES:
                    if (encoded := getattr(plain, name)) is not None:
                        check(encoded)
            except ValueError as error:
                raise UserError(
                    f"{path}: a face of the record at byte {place} is no picture ({error}); make the shard again"
                ) from None


def _read_with_places(path):
    """Yields `(position in bytes, FaceRecord)`."""
    size = os.path.getsize(path)
    with opened_regular(path) as file:
        position = 0
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            damaged = len(head) == 12 and _masked_crc(head[:8]) != head[8:]
            if len(head) < 12 or (not damaged and position + 16 + length > size):
                raise UserError(f"{path}: truncated record at byte {position}; make the shard again")
            body = b"" if damaged else file.read(length + 4)
            if damaged or _masked_crc(body[:-4]) != body[-4:]:
                raise UserError(f"{path}: damaged record at byte {position}; make the shard again")
            try:
                record = parse_record(body[:-4])
            except (ValueError, IndexError) as error:
                raise UserError(f"{path}: record at byte {position} holds no aligned face ({error})") from None
            yield position, record
            position += 16 + length


def count_records(paths):
    """Counts the records of shards, reading only the frame headers.

    Raises:
        UserError: if a shard is truncated.
    """
    count = 0
    for path in paths:
        size, position = os.path.getsize(path), 0
        with open(path, "rb") as file:
            while position < size:
                file.seek(position)
                head = file.read(8)
                position += 16 + struct.unpack("<Q", head)[0] if len(head) == 8 else size + 1
                if position > size:
                    raise UserError(f"{path}: truncated record; make the shard again")
                count += 1
    return count


def _masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number, content):
    """A length-delimited field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _bytes_feature(value):
    return _message(1, _message(1, value))  # Feature.bytes_list.value


def _read_varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("bad varint")


def _fields(data, number):
    """Returns the contents of all length-delimited fields with that number."""
    found, position = [], 0
    while position < len(data):
        key, position = _read_varint(data, position)
        if key & 7 == 2:
            length, position = _read_varint(data, position)
        elif key & 7 in (1, 5):
            length = 8 if key & 7 == 1 else 4
        elif key & 7 == 0:
            _, position = _read_varint(data, position)
            continue
        else:
            raise ValueError(f"bad wire type {key & 7}")
        if position + length > len(data):
            raise ValueError("field runs past the end")
        if key >> 3 == number:
            found.append(data[position : position + length])
        position += length
    return found


def _one_bytes(feature):
    (value,) = [value for items in _fields(feature, 1) for value in _fields(items, 1)]
    return value


def _floats(feature):
    """A float list, packed as TensorFlow writes it."""
    (packed,) = [value for items in _fields(feature, 2) for value in _fields(items, 1)]
    return np.frombuffer(packed, "<f4").astype(np.float32)
