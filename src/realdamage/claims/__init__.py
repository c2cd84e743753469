"""A claim with all its photos: one recommendation, and evidence that can be checked later."""

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
