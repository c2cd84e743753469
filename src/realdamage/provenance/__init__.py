"""What a photo's file declares: AI labels, content credentials, and the camera that took it.

A file that declares nothing may have been made by anything.
"""

from realdamage.provenance.c2pa import TrustAnchors
from realdamage.provenance.precedence import CameraFacts, Declared, Finding, Provenance
from realdamage.provenance.reader import read_provenance

__all__ = ["CameraFacts", "Declared", "Finding", "Provenance", "TrustAnchors", "read_provenance"]
