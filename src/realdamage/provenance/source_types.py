"""What the digital source types of IPTC declare; XMP and the actions of content credentials both use them.

https://cv.iptc.org/newscodes/digitalsourcetype/
"""

from __future__ import annotations

from realdamage.provenance.precedence import Declared

# Codes that declare AI, or may. Every other known code says where a picture comes from, and declares no AI.
DECLARING: dict[str, Declared] = {
    "trainedAlgorithmicMedia": "ai_generated",
    "compositeWithTrainedAlgorithmicMedia": "ai_edited",
    "compositeSynthetic": "ai_possible",  # a synthetic element, made by a network or by hand
    "algorithmicMedia": "ai_possible",  # by an algorithm that was not trained on pictures, as a fractal is
    "trainedAlgorithmicData": "ai_possible",  # C2PA's own: data from a trained model, not said to be the picture
}
# Codes of pictures that a lens or a scanner made.
CAPTURES = frozenset(
    {
        "digitalCapture",
        "computationalCapture",
        "compositeCapture",
        "negativeFilm",
        "positiveFilm",
        "print",
    }
)


def source_type_code(value: str) -> str:
    """The short code of a source type given as a full address, with a prefix, or as the code itself."""
    code = value.strip().rstrip("/").rpartition("/")[2].rpartition(":")[2].strip()
    by_lower = {name.lower(): name for name in (*DECLARING, *CAPTURES)}
    return by_lower.get(code.lower(), code)


def declared_by_source_type(code: str) -> Declared:
    """What a short code declares; "none" for captures, human work and codes that are not known."""
    return DECLARING.get(code, "none")
