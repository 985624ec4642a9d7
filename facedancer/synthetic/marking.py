"""Marks pictures and videos of ours as synthetic, in the words of the IPTC's digital source types."""

# Made by an algorithm alone: nobody was photographed, and no network was trained on anybody.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"
NOTE = f"Synthetic media: nobody in it exists; rendered by FaceDancer. Digital source type: {SOURCE_TYPE}"

XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
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
