"""A claim, not just a photo: all its photos judged together, one recommendation, evidence that can be checked later.

`judge_claim` judges, `write_evidence` keeps it, `verify_evidence` checks what was kept, `ClaimIndex` remembers earlier
claims, `ClaimPolicy` holds the rules.
"""

from realdamage.inference.claim.evidence import schema, write_evidence
from realdamage.inference.claim.index import ClaimIndex
from realdamage.inference.claim.judge import judge_claim, new_claim_id
from realdamage.inference.claim.log import EvidenceLog, LogReport
from realdamage.inference.claim.policy import ClaimPolicy
from realdamage.inference.claim.values import Claim, ClaimPhoto, Duplicate, ListingPhoto
from realdamage.inference.claim.verify import VerifyReport, verify_evidence
from realdamage.inference.claim.wording import Recommendation, message_to_buyer

__all__ = [
    "Claim",
    "ClaimIndex",
    "ClaimPhoto",
    "ClaimPolicy",
    "Duplicate",
    "EvidenceLog",
    "ListingPhoto",
    "LogReport",
    "Recommendation",
    "VerifyReport",
    "judge_claim",
    "message_to_buyer",
    "new_claim_id",
    "schema",
    "verify_evidence",
    "write_evidence",
]
