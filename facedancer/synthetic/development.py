"""From light to a picture: exposure, the tone curve, and what a camera spoils."""

import cv2
import numpy as np

# What well exposed skin of a middling tone reflects, and how far exposure goes to meet it.
_SKIN_TARGET = 0.48
_WHITE_BALANCE = 0.65


def exposure_of(light, skin):
    """The factors (3,) on a scene's red, green and blue that a camera chooses for somebody of that skin in that light.

    Its white balance takes back most of the light's colour, its exposure part of the skin's darkness.
    """
    brightness = np.maximum(light.brightness, 1e-3)
    luminance = float(np.dot([0.25, 0.65, 0.10], brightness))
    reflected = float(np.mean(skin)) ** 0.55 * 0.40**0.45
    return _SKIN_TARGET / max(luminance * reflected, 1e-3) * (luminance / brightness) ** _WHITE_BALANCE


def develop(linear, exposure, quality, size, noise_seed):
    """Turns a linear picture into the camera's.

    Args:
        linear: (H, W, 3) float32, already reduced to the picture's pixels.
        exposure: (3,) factors.
        quality: `scenes.Quality`.
        size: height of the picture in pixels, by which the blur is scaled.
        noise_seed: of the sensor's noise, which is one of the scene.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    x = np.maximum(linear * np.asarray(exposure, np.float32), 0)
    # A film-like shoulder: straight in the shadows, never quite white.
    x = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055).astype(np.float32)
    x = (x - 0.5) * np.float32(quality.contrast) + 0.5
    blur = quality.blur * size / 256
    if blur > 0.15:
        reach = 2 * int(np.ceil(3 * blur)) + 1
        x = cv2.GaussianBlur(x, (reach, reach), blur)
    noise = np.random.default_rng([noise_seed, *b"noise"]).standard_normal(x.shape, np.float32)
    # Sensor noise is a little coarser than pixels.
    x = x + cv2.blur(noise, (2, 2)) * np.float32(1.5 * quality.noise)
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
