"""From light to a picture: exposure, tone curve and camera degradation."""

import cv2
import numpy as np

# Reflectance of well-exposed skin of medium tone, and how far exposure adapts toward it.
_SKIN_TARGET = 0.48
_WHITE_BALANCE = 0.65


def exposure_of(light, skin):
    """Returns the factors (3,) that a camera applies to red, green and blue for that skin in that light.

    White balance removes most of the light's color; exposure compensates part of the skin's darkness.
    """
    brightness = np.maximum(light.brightness, 1e-3)
    luminance = float(np.dot([0.25, 0.65, 0.10], brightness))
    reflected = float(np.mean(skin)) ** 0.55 * 0.40**0.45
    return _SKIN_TARGET / max(luminance * reflected, 1e-3) * (luminance / brightness) ** _WHITE_BALANCE


def develop(linear, exposure, quality, size, noise_seed):
    """Converts a linear picture to the camera's.

    Args:
        linear: (H, W, 3) float32, already reduced to the picture's pixels.
        exposure: (3,) factors.
        quality: `scenes.Quality`.
        size: height of the picture in pixels, which scales the blur.
        noise_seed: of the sensor noise, part of the scene.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    x = np.maximum(linear * np.asarray(exposure, np.float32), 0)
    # A film-like shoulder: linear in the shadows, never quite white.
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
