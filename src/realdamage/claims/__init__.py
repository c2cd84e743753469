"""A claim, not just a photo: all its photos judged together, one recommendation, evidence that can
be checked later.

`judge_claim` judges, `write_evidence` keeps it, `verify_evidence` checks what was kept,
`ClaimIndex` remembers earlier claims, `ClaimPolicy` holds the rules.
"""

from realdamage.claims.decide import Claim, ClaimPhoto, Duplicate, ListingPhoto
from realdamage.claims.evidence import schema, write_evidence
from realdamage.claims.index import ClaimIndex
from realdamage.claims.judge import judge_claim, new_claim_id
from realdamage.claims.log import EvidenceLog, LogReport
from realdamage.claims.policy import ClaimPolicy, Recommendation, message_to_buyer
from realdamage.claims.verify import VerifyReport, verify_evidence

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
