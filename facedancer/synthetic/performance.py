"""What people do in a video: they turn, look around, blink and talk along smooth curves; and the sound of it.

The voice uses the same syllables as the mouth's movements: a glottal tone filtered by the formants of vowels.
"""

import dataclasses
import functools

import numpy as np

from facedancer.synthetic.scenes import Camera, Light, Quality, draw_scene, with_lids

SOUND_RATE = 24_000
# The mouth's shape for each vowel, and its formants in Hz.
_VOWELS = {
    "a": ({"jawOpen": 0.42, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2}, (800, 1250, 2600)),
    "e": ({"jawOpen": 0.20, "mouthStretchLeft": 0.35, "mouthStretchRight": 0.35}, (480, 1950, 2700)),
    "i": ({"jawOpen": 0.08, "mouthSmileLeft": 0.35, "mouthSmileRight": 0.35}, (290, 2250, 3000)),
    "o": ({"jawOpen": 0.26, "mouthFunnel": 0.55}, (480, 880, 2500)),
    "u": ({"jawOpen": 0.10, "mouthPucker": 0.60, "mouthFunnel": 0.2}, (310, 780, 2400)),
    "m": ({"mouthPressLeft": 0.4, "mouthPressRight": 0.4, "mouthRollLower": 0.2}, (250, 1100, 2200)),
}


@dataclasses.dataclass(frozen=True)
class Syllable:
    """A vowel and its time in seconds."""

    start: float
    duration: float
    vowel: str
    loudness: float

    def weight(self, t):
        """Returns the mouth's smooth progress into it at times t, 0 to 1; slightly longer than the sound."""
        x = np.clip((np.asarray(t) - self.start) / self.duration * 0.8 + 0.1, 0, 1)
        return np.sin(np.pi * x) ** 2


@dataclasses.dataclass(frozen=True)
class Performance:
    """One person's part in a video.

    Attributes:
        scene: `scenes.Scene`, everything that does not change.
        waves: name of a curve -> (amplitudes, frequencies in Hz, phases).
        blinks: times at which the eyes close, seconds.
        glances: (times, yaws, pitches) of where the eyes look.
        syllables: tuple of `Syllable`.
        pitch: of the voice, Hz.
    """

    scene: object
    waves: dict
    blinks: tuple
    glances: tuple
    syllables: tuple
    pitch: float

    def curve(self, name, t):
        """Returns a smooth curve's values at times t, roughly in [-1, 1]."""
        amplitudes, frequencies, phases = self.waves[name]
        return sum(a * np.sin(2 * np.pi * f * np.asarray(t) + p) for a, f, p in zip(amplitudes, frequencies, phases,
                                                                                   strict=True))  # fmt: skip

    def at(self, t):
        """Returns the `scenes.Scene` at a time."""
        scene = self.scene
        yaw = 26 * self.curve("yaw", t)
        pitch = 8 * self.curve("pitch", t) - 1
        roll = 5 * self.curve("roll", t)
        gaze = self._gaze(t, yaw, pitch)
        expression = with_lids(self._expression(t), gaze)
        lobes = scene.light.lobes.copy()
        turn = 0.9 * self.curve("lamp", t)
        c, s = np.cos(turn), np.sin(turn)
        lobes[0, [0, 2]] = c * lobes[0, 0] + s * lobes[0, 2], -s * lobes[0, 0] + c * lobes[0, 2]
        return dataclasses.replace(
            scene,
            pose=(float(yaw), float(pitch), float(roll)),
            gaze=gaze,
            expression=expression,
            light=dataclasses.replace(scene.light, lobes=lobes),
            place=(scene.place[0] + 0.10 * float(self.curve("sway", t)), *scene.place[1:]),
        )

    def _gaze(self, t, yaw, pitch):
        """Gaze jumps from one target to the next, and stays on it while the head turns."""
        times, yaws, pitches = self.glances
        at_yaw, at_pitch = (float(np.interp(t, times, values)) for values in (yaws, pitches))
        return (float(np.clip(at_yaw - 0.6 * yaw, -28, 28)), float(np.clip(at_pitch - 0.6 * pitch, -16, 16)))

    def _expression(self, t):
        mood = float(0.5 + 0.5 * self.curve("mood", t))
        expression = {"mouthSmileLeft": 0.45 * mood, "mouthSmileRight": 0.42 * mood, "cheekSquintLeft": 0.3 * mood,
                      "cheekSquintRight": 0.3 * mood}  # fmt: skip
        brows = float(self.curve("brows", t))
        if brows > 0:
            expression |= {"browInnerUp": 0.5 * brows, "browOuterUpLeft": 0.5 * brows, "browOuterUpRight": 0.5 * brows}
        else:
            expression |= {"browDownLeft": -0.4 * brows, "browDownRight": -0.4 * brows}
        for syllable in self.syllables:
            weight = float(syllable.weight(t)) * syllable.loudness
            if weight > 0:
                for name, value in _VOWELS[syllable.vowel][0].items():
                    expression[name] = expression.get(name, 0.0) + weight * value
        closed = max((float(np.clip(1.25 - abs(t - blink) / 0.10, 0, 1)) for blink in self.blinks), default=0.0)
        expression |= {"eyeBlinkLeft": 0.98 * closed, "eyeBlinkRight": 0.98 * closed}
        return {name: float(np.clip(value, 0, 1)) for name, value in expression.items()}

    def voice(self, seconds, seed):
        """Returns the sound, (seconds * SOUND_RATE,) float32 in [-1, 1]."""
        t = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
        pitch = self.pitch * (1 + 0.12 * self.curve("tone", t) + 0.006 * np.sin(2 * np.pi * 5.5 * t))
        phase = 2 * np.pi * np.cumsum(pitch) / SOUND_RATE
        breath = np.random.default_rng([seed, *b"breath"]).normal(0, 0.02, len(t))
        total = np.zeros(len(t))
        for syllable in self.syllables:
            begin, end = (round(x * SOUND_RATE) for x in (syllable.start, syllable.start + 1.3 * syllable.duration))
            span = slice(max(begin, 0), min(end, len(t)))
            loud = syllable.loudness * syllable.weight(t[span])
            for harmonic in range(1, 26):
                total[span] += loud * _formant_gain(syllable.vowel, harmonic * self.pitch) / harmonic**0.6 * np.sin(
                    harmonic * phase[span]
                )  # fmt: skip
            total[span] += loud * breath[span]
        return (0.55 * total / max(np.abs(total).max(), 1e-6)).astype(np.float32)


def _formant_gain(vowel, frequency):
    """Returns the gain of a vowel's resonances at a frequency."""
    widths, strengths = (90, 120, 180), (1.0, 0.5, 0.25)
    return sum(
        strength / (1 + ((frequency - formant) / width) ** 2)
        for formant, width, strength in zip(_VOWELS[vowel][1], widths, strengths, strict=True)
    )


@functools.lru_cache(maxsize=4)
def draw_performances(seed, people, seconds, aspect):
    """Returns a tuple of `Performance`s of people side by side, leftmost first.

    Args:
        seed: of everything.
        people: their number.
        seconds: of the video.
        aspect: width of the picture over its height.
    """
    # Wide enough for everybody, but never closer than a portrait.
    half_height = max(1.9, 1.35 * people / aspect)
    performances = []
    for index in range(people):
        random = np.random.default_rng([seed, index, *b"performance"])
        scene = draw_scene(int(random.integers(2**31)))
        spacing = 2 * half_height * aspect / people
        camera = Camera(distance=18.0, half_height=half_height, center=(0.0, 0.0), exposure=1.0)
        soft = scene.light.lobes.copy()
        soft[:, 2] = np.abs(soft[:, 2])  # never filmed from the dark side
        light = Light(soft, scene.light.above, scene.light.below, scene.light.seed)
        scene = dataclasses.replace(
            scene, camera=camera, light=light, occluder=None, quality=Quality(0.2, 0.003, 1.0),
            place=((index - (people - 1) / 2) * spacing, float(random.normal(0, 0.05)) - 0.1 * (people > 1), 0.0),
        )  # fmt: skip
        names = ("yaw", "pitch", "roll", "mood", "brows", "lamp", "sway", "tone")
        performances.append(
            Performance(
                scene=scene,
                waves={name: _waves(random) for name in names},
                blinks=tuple(np.cumsum(random.uniform(1.2, 4.0, int(seconds) + 2)).tolist()),
                glances=_glances(random, seconds),
                syllables=_speech(random, seconds),
                pitch=float(random.uniform(95, 230)),
            )
        )
    return tuple(performances)


def _waves(random):
    frequencies = np.array([0.11, 0.23, 0.41]) * random.uniform(0.8, 1.3, 3)
    amplitudes = np.array([0.55, 0.35, 0.18]) * random.uniform(0.7, 1.3, 3)
    return tuple(amplitudes.tolist()), tuple(frequencies.tolist()), tuple(random.uniform(0, 2 * np.pi, 3).tolist())


def _glances(random, seconds):
    """Returns times and directions, each direction twice, for the start and the end of a glance."""
    times, yaws, pitches, t = [], [], [], 0.0
    while t < seconds + 1:
        stay = random.uniform(0.6, 2.5)
        yaw, pitch = (0.0, 0.0) if random.random() < 0.5 else (random.normal(0, 9), random.normal(0, 5))
        times += [t, t + stay]
        yaws += [yaw, yaw]
        pitches += [pitch, pitch]
        t += stay + 0.07
    return tuple(times), tuple(yaws), tuple(pitches)


def _speech(random, seconds):
    """Returns phrases of syllables with pauses between them."""
    syllables, t = [], random.uniform(0.1, 0.6)
    while t < seconds:
        for _ in range(random.integers(4, 11)):
            duration = random.uniform(0.13, 0.28)
            vowel = str(random.choice(list(_VOWELS)))
            syllables.append(Syllable(float(t), float(duration), vowel, float(random.uniform(0.6, 1.0))))
            t += 0.82 * duration
        t += random.uniform(0.4, 1.1)
    return tuple(syllables)
