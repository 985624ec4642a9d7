"""Marks what people get as synthetic, in the words of the IPTC's digital source types, for machines and for people."""

from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.files import write_atomic
from facedancer.core.images import encode_image

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
NOTE = f"Synthetic media: faces in it were swapped by FaceDancer. Digital source type: {SOURCE_TYPE}"

MARKED_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{NOTE}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def check_image_suffix(path):
    """Raises `UserError` where a picture file of that name could hold no mark."""
    if Path(path).suffix.lower() not in MARKED_SUFFIXES:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(MARKED_SUFFIXES)}")


def write_marked_image(path, image):
    """Writes (H, W, 3) uint8 RGB with the mark in its XMP, whole or not at all."""
    check_image_suffix(path)
    write_atomic(path, encode_image(image, Path(path).suffix, xmp=_XMP))


def marked_metadata(metadata):
    """Returns a video's metadata, a dict of texts, with the mark as its comment, before what that said."""
    comment = metadata.get("comment", NOTE)
    return {**metadata, "comment": comment if NOTE in comment else f"{NOTE}\n{comment}"}
