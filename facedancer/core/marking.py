"""Marks output as synthetic with the IPTC's digital source types, for machines and people."""

import re
from dataclasses import dataclass
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.files import write_atomic
from facedancer.core.images import encode_image
from facedancer.core.pictures import MARK, encode_picture

MARKED_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".apng", ".jfif", ".jpe")


@dataclass(frozen=True)
class Mark:
    """The mark on a picture or video that says how it was made.

    Attributes:
        words: how it was made, in words.
        term: the IPTC digital source type.
        source_type: the term's URI.
        note: one line with both.
        xmp: the same as a picture's metadata.
    """

    words: str
    term: str

    @property
    def source_type(self):
        return f"http://cv.iptc.org/newscodes/digitalsourcetype/{self.term}"

    @property
    def note(self):
        return f"{MARK}{self.words}. Digital source type: {self.source_type}"

    @property
    def xmp(self):
        return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="{self.source_type}">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{self.note}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


SWAPPED = Mark("faces in it were swapped by FaceDancer", "compositeWithTrainedAlgorithmicMedia")
# Purely algorithmic: nobody was photographed, and no network was trained on anybody.
RENDERED = Mark("nobody in it exists; rendered by FaceDancer", "algorithmicMedia")


def check_image_suffix(path):
    """Raises `UserError` if a picture file with that name cannot hold a mark."""
    if Path(path).suffix.lower() not in MARKED_SUFFIXES:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(MARKED_SUFFIXES)}")


def write_marked_image(path, image, mark=SWAPPED):
    """Writes (H, W, 3) uint8 RGB with the mark in its XMP, atomically."""
    check_image_suffix(path)
    write_atomic(path, encode_image(image, Path(path).suffix, xmp=mark.xmp))


def write_marked_picture(path, picture, mark=SWAPPED):
    """Writes a `pictures.Picture` with the mark in its XMP, atomically."""
    check_image_suffix(path)
    write_atomic(path, encode_picture(picture, Path(path).suffix, mark.xmp))


def marked_metadata(metadata, mark=SWAPPED):
    """Returns a video's metadata, a dict of texts, with the mark as its comment's first line.

    It replaces an earlier mark, which may no longer be true: once swapped, somebody in a rendered video exists.
    """
    kept = re.sub(rf"(?m)^{MARK}[^\n]*\n?", "", metadata.get("comment", ""))
    return {**metadata, "comment": f"{mark.note}\n{kept}" if kept else mark.note}
