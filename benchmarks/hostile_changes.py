"""Changes to bytes and JSON values that break what reads them; for `hostile_inputs.py`."""

import copy
import json

# What damages numbers in headers most: ends of ranges, signs, sizes.
NUMBERS = (
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_VALUES = (
    None, True, -1, 0, 1, 3.5, 10**19, -(10**19), 10**300, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800",
    "../../etc/passwd", "/dev/zero", "x" * 10_000, [], {}, [None], [[]], [1, 2], {"a": 1},
)  # fmt: skip


def change_bytes(rng, content, spare=()):
    """Changes a few places of bytes: drawn anew, a number of a range's end, cut, doubled, exchanged, moved, spliced."""
    content = bytearray(content)
    for _ in range(1 + rng.integers(4)):
        if not content:
            break
        # Headers come first in most files.
        place = int(rng.integers(len(content)) if rng.random() < 0.5 else min(rng.exponential(60), len(content) - 1))
        way = rng.integers(8)
        if way == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif way == 1:
            content[place] = int(rng.integers(256))
        elif way in (2, 3):
            size = int(rng.choice([1, 2, 4, 8]))
            number = NUMBERS[rng.integers(len(NUMBERS))] % 256**size
            content[place : place + size] = number.to_bytes(size, "little" if way == 2 else "big")
        elif way == 4:
            del content[place : place + int(rng.exponential(20)) + 1]
        elif way == 5:
            content[place:place] = content[place : place + int(rng.exponential(40)) + 1]
        elif way == 6:
            del content[max(place, 8) :]
        elif spare:
            other = spare[rng.integers(len(spare))]
            start = int(rng.integers(len(other)))
            content[place : place + 64] = other[start : start + 64]
    return bytes(content)


def change_json(rng, value):
    """Returns a JSON value with one to three of its parts changed: other types, out of range, missing, more, nested."""
    value = json.loads(json.dumps(value))
    for _ in range(1 + rng.integers(3)):
        parents = [value]
        for parent in parents:
            items = parent.values() if isinstance(parent, dict) else parent
            parents += [item for item in items if isinstance(item, dict | list) and item]
        parent = parents[rng.integers(len(parents))]
        if not parent:
            break
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        key, way = keys[rng.integers(len(keys))], rng.random()
        if way < 0.6:
            parent[key] = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
        elif way < 0.75:
            del parent[key]
        elif way < 0.85 and isinstance(parent, dict):
            parent[("unknown", "", "\0", "a" * 5000)[rng.integers(4)]] = 1
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            nested = parent[key]
            for _ in range(int(rng.choice([1, 3, 200]))):
                nested = [nested]
            parent[key] = nested
    return value
