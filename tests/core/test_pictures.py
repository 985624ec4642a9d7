"""What a picture file holds comes out again, or is named: frames, alpha, colors, resolution, EXIF."""

import io
import struct

import numpy as np
import pytest
from drawn_faces import draw_face
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin
from wide_profile import wide_profile

from facedancer.core import images
from facedancer.core.images import ImageError, decode_image
from facedancer.core.marking import SWAPPED, write_marked_picture
from facedancer.core.pictures import load_picture, losses_of

# PNG's cHRM: x and y of white, red, green and blue, times 100,000.
_P3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
_BT709 = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(draw_face(3, 48))


@pytest.fixture
def rewrite(tmp_path):
    """Saves a Pillow picture, reads it, writes it with another suffix; returns the `Picture` and the result, opened."""

    def rewrite(picture, kind, suffix, **options):
        picture.save(tmp_path / "given", kind, **options)
        loaded = load_picture(tmp_path / "given")
        write_marked_picture(tmp_path / f"out{suffix}", loaded)
        written = Image.open(io.BytesIO((tmp_path / f"out{suffix}").read_bytes()))
        return loaded, written

    return rewrite


def shown(picture):
    """A Pillow picture as a screen that knows profiles shows it, (H, W, 3) int."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
    seen = ImageCms.profileToProfile(picture.convert("RGB"), profile, ImageCms.createProfile("sRGB"))
    return np.asarray(seen).astype(int)


def _with_exif(picture, exif):
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif.tobytes())
    return Image.open(file)


class TestAnimation:
    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
    def test_frames_durations_and_repetition(self, face, rewrite, kind, suffix):
        frames = [face.rotate(angle) for angle in (0, 30, 60)]
        options = {} if kind == "AVIF" else {"loop": 3 if kind == "GIF" else 4}  # GIF counts what comes after the first
        loaded, written = rewrite(
            frames[0], kind, suffix, save_all=True, append_images=frames[1:], duration=[40, 70, 120], **options
        )
        assert [round(frame.duration) for frame in loaded.frames] == [40, 70, 120] and not loaded.missing
        assert loaded.plays == (0 if kind == "AVIF" else 4)
        assert written.n_frames == 3
        durations = []
        for index in range(3):
            written.seek(index)
            written.load()
            durations.append(written.info["duration"])
            assert np.abs(np.asarray(written.convert("RGB")).astype(int) - frames[index]).mean() < 12
        assert durations == [40, 70, 120]
        expected = 0 if kind == "AVIF" else 3 if suffix == ".gif" else 4
        assert written.info["loop"] == expected

    def test_a_gif_that_says_nothing_of_repetition_is_shown_once(self, face, rewrite):
        loaded, written = rewrite(face, "GIF", ".webp", save_all=True, append_images=[face.rotate(20)])
        assert loaded.plays == 1 and written.info["loop"] == 1
        loaded, written = rewrite(face, "GIF", ".gif", save_all=True, append_images=[face.rotate(20)])
        assert "loop" not in written.info

    def test_the_still_picture_of_an_apng_is_no_frame(self, face, rewrite):
        frames = [face.rotate(20), face.rotate(40)]
        options = {"save_all": True, "append_images": frames, "default_image": True, "duration": [50, 90]}
        loaded, written = rewrite(face, "PNG", ".png", **options)
        assert written.default_image and written.n_frames == 3 and not losses_of(loaded, ".png")
        for index, duration in ((1, 50), (2, 90)):
            written.seek(index)
            assert written.info["duration"] == duration
        loaded, written = rewrite(face, "PNG", ".webp", **options)
        assert written.n_frames == 2 and "still picture" in losses_of(loaded, ".webp")[0]

    def test_transparent_frames_do_not_pile_up(self, face, rewrite):
        frames, stripes = [], np.add.outer(np.arange(48), np.arange(48)) // 16 % 3
        for index in range(3):
            frames.append(face.copy())
            frames[-1].putalpha(Image.fromarray(np.uint8(255 * (stripes == index))))
        for suffix in (".gif", ".webp", ".png"):
            _, written = rewrite(frames[0], "PNG", suffix, save_all=True, append_images=frames[1:], duration=50)
            written.seek(2)
            alpha = np.asarray(written.convert("RGBA"))[..., 3]
            np.testing.assert_array_equal(alpha, 255 * (stripes == 2), err_msg=suffix)

    def test_a_file_that_holds_no_animation_is_refused(self, face, rewrite):
        with pytest.raises(ImageError, match=r"animation of 2 frames.*\.webp"):
            losses_of(rewrite(face, "GIF", ".gif", save_all=True, append_images=[face.rotate(9)])[0], ".jpg")

    def test_the_limit_counts_all_frames(self, face, rewrite, monkeypatch):
        monkeypatch.setattr(images, "MAX_PIXELS", 2 * 48 * 48)
        with pytest.raises(ImageError, match=r"too large \(3 frames of 48x48\)"):
            rewrite(face, "GIF", ".gif", save_all=True, append_images=[face.rotate(9), face.rotate(18)])


class TestAlpha:
    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_is_kept_with_what_lies_under_it(self, face, rewrite, suffix):
        picture = face.copy()
        picture.putalpha(Image.linear_gradient("L").resize(face.size))
        loaded, written = rewrite(picture, "PNG", suffix)
        assert written.mode == "RGBA" and not losses_of(loaded, suffix)
        np.testing.assert_array_equal(np.asarray(written)[..., 3], np.asarray(picture)[..., 3])
        if suffix == ".png":
            np.testing.assert_array_equal(np.asarray(written), np.asarray(picture))

    @pytest.mark.parametrize("mode", ["LA", "P", "1"])
    def test_of_every_mode(self, face, rewrite, mode):
        picture = face.convert("L" if mode == "LA" else mode)
        if mode == "LA":
            picture.putalpha(77)
            loaded, _ = rewrite(picture, "PNG", ".png")
            assert (loaded.frames[0].alpha == 77).all()
        else:
            color = picture.getpixel((5, 5))
            loaded, _ = rewrite(picture, "PNG", ".png", transparency=color)
            np.testing.assert_array_equal(loaded.frames[0].alpha == 0, np.asarray(picture).astype(int) == color)

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_is_turned_with_a_picture_that_has_a_profile_too(self, face, rewrite, kind, orientation):
        picture, exif = face.copy(), Image.Exif()
        picture.putalpha(Image.linear_gradient("L").resize(face.size))
        exif[ExifTags.Base.Orientation] = orientation
        options = {"icc_profile": wide_profile(), "exif": exif.tobytes(), "quality": 100}
        loaded, written = rewrite(
            picture, kind, ".png", **(options | {"lossless": True} if kind == "WEBP" else options)
        )
        expected = np.asarray(ImageOps.exif_transpose(_with_exif(picture, exif))).astype(int)
        assert written.info["icc_profile"] == wide_profile() and not written.getexif().get(ExifTags.Base.Orientation)
        assert np.abs(loaded.frames[0].alpha.astype(int) - expected[..., 3]).max() <= 3
        visible = expected[..., 3] > 0
        assert np.abs(np.asarray(written).astype(int)[..., :3] - expected[..., :3])[visible].mean() < 3

    def test_that_a_file_cannot_hold_is_named(self, face, rewrite):
        picture = face.copy()
        picture.putalpha(0)
        loaded, written = rewrite(picture, "PNG", ".jpg")
        assert "alpha is dropped" in losses_of(loaded, ".jpg")[0]
        assert np.asarray(written).min() > 250  # white, and not what lay hidden
        picture.putalpha(90)
        assert "all or nothing" in losses_of(rewrite(picture, "PNG", ".png")[0], ".gif")[0]

    def test_that_hides_nothing_is_none(self, face, rewrite):
        loaded, _ = rewrite(face.convert("RGBA"), "PNG", ".jpg")
        assert loaded.frames[0].alpha is None and not losses_of(loaded, ".jpg")


class TestColors:
    def test_own_colors_and_profile_stay(self, face, rewrite):
        loaded, written = rewrite(face, "PNG", ".png", icc_profile=wide_profile())
        assert written.info["icc_profile"] == wide_profile()
        np.testing.assert_array_equal(np.asarray(written), np.asarray(face))
        seen = loaded.srgb(0)
        assert np.abs(seen.astype(int) - shown(written)).max() <= 1
        assert np.abs(seen.astype(int) - np.asarray(face)).mean() > 5  # or the test says nothing

    def test_only_what_was_swapped_changes(self, face, rewrite):
        loaded, _ = rewrite(face, "PNG", ".png", icc_profile=wide_profile())
        swapped = loaded.srgb(0).copy()
        swapped[10:20, 10:30] = (200, 120, 90)
        colors = loaded.with_swapped(0, swapped, [(8, 8, 25, 22), (20, 8, 32, 22)]).colors
        untouched = np.ones((48, 48), bool)
        untouched[10:20, 10:30] = False
        np.testing.assert_array_equal(colors[untouched], np.asarray(face)[untouched])
        picture = Image.fromarray(colors)
        picture.info["icc_profile"] = wide_profile()
        assert np.abs(shown(picture)[10:20, 10:30] - (200, 120, 90)).max() <= 6

    def test_a_file_without_profiles_holds_srgb(self, face, rewrite):
        loaded, written = rewrite(face, "PNG", ".gif", icc_profile=wide_profile())
        assert np.abs(np.asarray(written.convert("RGB")).astype(int) - loaded.srgb(0)).mean() < 8

    def test_cmyk_becomes_rgb_and_is_named(self, face, rewrite):
        loaded, written = rewrite(face.convert("CMYK"), "TIFF", ".png")
        assert loaded.losses == ("its CMYK becomes RGB",) and written.mode == "RGB"

    def test_lab_becomes_rgb_and_is_named(self, face, rewrite):
        lab = ImageCms.createProfile("LAB")
        turn = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
        profile = ImageCms.ImageCmsProfile(lab).tobytes()
        loaded, _ = rewrite(ImageCms.applyTransform(face, turn), "TIFF", ".png", icc_profile=profile)
        assert loaded.losses == ("its LAB becomes RGB",)
        assert np.abs(loaded.frames[0].colors.astype(int) - face).mean() < 2

    @pytest.mark.parametrize(
        ("chunks", "column", "middle"),
        [
            ({"cICP": bytes([12, 13, 0, 1])}, (0.5151, 0.2412, -0.0011), 128),  # Display P3's red, as its profiles say
            ({"gAMA": struct.pack(">I", 100_000)}, (0.4361, 0.2225, 0.0139), 188),  # linear: half the light
            (
                {"gAMA": struct.pack(">I", 45_455), "cHRM": struct.pack(">8I", *_P3)},
                (0.5151, 0.2412, -0.0011),
                128,
            ),
        ],
    )
    def test_stated_by_numbers_become_a_profile(self, rewrite, tmp_path, chunks, column, middle):
        info = PngImagePlugin.PngInfo()
        for name, content in chunks.items():
            info.add(name.encode(), content)
        loaded, written = rewrite(Image.new("RGB", (4, 4), (128, 128, 128)), "PNG", ".png", pnginfo=info)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"])).profile
        np.testing.assert_allclose(profile.red_colorant[0], column, atol=2e-4)
        assert np.abs(loaded.srgb(0).astype(int) - middle).max() <= 1  # gray stays gray
        assert (decode_image((tmp_path / "given").read_bytes()) == loaded.srgb(0)).all()

    @pytest.mark.parametrize(
        ("chunks", "loss"),
        [
            ({"gAMA": struct.pack(">I", 45_455), "cHRM": struct.pack(">8I", *_BT709)}, None),  # what most PNGs state
            ({"sRGB": b"\0", "gAMA": struct.pack(">I", 100_000)}, None),
            ({"cICP": bytes([1, 13, 0, 1])}, None),
            ({"cICP": bytes([2, 2, 0, 1])}, None),
            ({"cICP": bytes([9, 16, 0, 1])}, "HDR (PQ)"),
            ({"cICP": bytes([11, 17, 0, 1])}, "primaries 11, transfer 17"),
            ({"gAMA": struct.pack(">I", 45_455), "cHRM": bytes(32)}, None),  # senseless
            ({"gAMA": bytes(4)}, None),
        ],
    )
    def test_stated_by_numbers_that_are_srgb_or_cannot_be_kept(self, face, rewrite, chunks, loss):
        info = PngImagePlugin.PngInfo()
        for name, content in chunks.items():
            info.add(name.encode(), content)
        loaded, written = rewrite(face, "PNG", ".png", pnginfo=info)
        assert not written.info.get("icc_profile") and (loaded.srgb(0) == np.asarray(face)).all()
        assert (loss in loaded.losses[0]) if loss else not loaded.losses

    def test_stated_in_an_avif(self, face, tmp_path):
        face.save(tmp_path / "given.avif", "AVIF", quality=90)
        content = (tmp_path / "given.avif").read_bytes()
        place = content.index(b"colrnclx") + 8
        for numbers, has_profile in (((12, 13), True), ((1, 13), False)):
            stated = content[:place] + struct.pack(">HH", *numbers) + content[place + 4 :]
            (tmp_path / "given.avif").write_bytes(stated)
            assert bool(load_picture(tmp_path / "given.avif").profile) == has_profile

    def test_a_damaged_profile_is_named(self, face, rewrite):
        loaded, written = rewrite(face, "PNG", ".png", icc_profile=wide_profile()[:200])
        assert "profile is damaged" in loaded.losses[0] and "icc_profile" not in written.info

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
    def test_sixteen_bits_are_named(self, face, rewrite, kind):
        gray = Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257)
        loaded, _ = rewrite(gray, kind, ".png")
        assert loaded.losses == ("its 16 bits a channel become 8",)
        np.testing.assert_array_equal(loaded.frames[0].colors[..., 0], np.asarray(face.convert("L")))
        assert not rewrite(face, kind, ".png")[0].losses


class TestRest:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
    def test_resolution_and_exif_stay(self, face, rewrite, suffix):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "camera"
        loaded, written = rewrite(face, "JPEG", suffix, dpi=(300, 300), exif=exif)
        found = written.getexif()
        dpi = found[0x011A] if suffix == ".webp" else written.info["dpi"][0]
        assert round(float(dpi)) == 300 and found[0x010F] == "camera"
        assert found.get(0x0112, 1) == 1  # the pixels are upright now
        assert not losses_of(loaded, suffix) and SWAPPED.source_type.encode() in written.info["xmp"]
        np.testing.assert_array_equal(loaded.frames[0].colors, decode_image(written_as_jpeg(face, exif)))

    def test_pages_are_counted(self, face, rewrite):
        loaded, _ = rewrite(face, "TIFF", ".png", save_all=True, append_images=[face, face])
        assert loaded.missing == ("only the first of its 3 pages is swapped and written",)
        assert not rewrite(face, "TIFF", ".png")[0].missing

    def test_of_a_tiff_what_says_something_stays(self, face, rewrite):
        loaded, written = rewrite(face, "TIFF", ".png", tiffinfo={ExifTags.Base.Artist: "somebody"})
        found = written.getexif()
        assert found[ExifTags.Base.Artist] == "somebody" and ExifTags.Base.StripOffsets not in found
        assert loaded.dpi is None and "dpi" not in written.info  # it states none

    def test_a_tiffs_other_channels_are_named(self, face, tmp_path):
        face.convert("RGBA").save(tmp_path / "given.tif")
        content = (tmp_path / "given.tif").read_bytes()
        extra = struct.pack("<HHIH", 338, 3, 1, 2)  # the tag that makes the fourth channel alpha
        assert extra in content
        (tmp_path / "given.tif").write_bytes(content.replace(extra, struct.pack("<HHIH", 338, 3, 1, 0)))
        assert load_picture(tmp_path / "given.tif").losses == ("its 1 extra channel is left out",)

    def test_texts_are_named_and_a_mark_is_none(self, face, rewrite, tmp_path):
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", "somebody")
        assert rewrite(face, "PNG", ".png", pnginfo=info)[0].losses == ("left out of it: the text 'Author'",)
        loaded, _ = rewrite(face, "JPEG", ".jpg", comment=b"hello", xmp=b"<x:xmpmeta/>")
        assert loaded.losses == ("left out of it: its comment, its XMP",)
        assert not load_picture(tmp_path / "out.jpg").losses

    def test_the_video_of_a_motion_photo_is_named(self, face, tmp_path):
        file, path = io.BytesIO(), tmp_path / "given.jpg"
        face.save(file, "JPEG", xmp=b'<x:xmpmeta GCamera:MotionPhoto="1"/>')
        path.write_bytes(file.getvalue())
        assert not load_picture(path).missing  # somebody took the video out
        path.write_bytes(file.getvalue() + b"\0\0\0\x18ftypmp42")
        assert load_picture(path).missing == ("the video in it is left out",)

    def test_a_gif_is_marked(self, face, tmp_path, rewrite):
        _, written = rewrite(face, "PNG", ".gif")
        assert written.n_frames == 1 and SWAPPED.source_type.encode() in (tmp_path / "out.gif").read_bytes()


def written_as_jpeg(picture, exif):
    file = io.BytesIO()
    picture.save(file, "JPEG", dpi=(300, 300), exif=exif)
    return file.getvalue()
