"""What a photo's file says of itself: declarations of AI, content credentials, and the camera that took it.

Only positive evidence: a file that declares nothing may have been made by anything.
"""

from realdamage.inference.provenance.reader import read_provenance
from realdamage.inference.provenance.record import CameraFacts, Declared, Finding, Provenance
from realdamage.inference.provenance.trust import TrustAnchors

__all__ = ["CameraFacts", "Declared", "Finding", "Provenance", "TrustAnchors", "read_provenance"]
