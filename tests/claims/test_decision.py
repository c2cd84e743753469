"""From findings to a recommendation: each rule by itself, which of several counts, and what may never escalate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from realdamage.claims.decide import (
    Claim,
    ClaimPhoto,
    Duplicate,
    ListingPhoto,
    decide,
    recommended_by,
)
from realdamage.claims.policy import ClaimPolicy, Recommendation, Rules, message_to_buyer
from realdamage.core.quality import PhotoQuality
from realdamage.core.verdict import Reason, Verdict
from realdamage.photo_pairs import Change, Comparison
from realdamage.phrases import in_english, phrase
from realdamage.provenance import CameraFacts, Finding, Provenance

MODEL: dict[str, Any] = {"demo": False, "calibrated": True, "guarantee": None}
PROMISE = {
    "delta": 0.05,
    "accused": {"share": 0.03, "photos": 110},
    "passed": None,
    "statement": "…",
}
ACCUSING = (
    *(
        "fake",
        "fraud",
        "forge",
        "forgery",
        "lie",
        "liar",
        "lying",
        "cheat",
        "scam",
        "deceive",
        "dishonest",
        "suspicious",
    ),
    *("manipulated", "tamper", "accuse", "guilty", "crime", "counterfeit", "fabricate"),
    *(
        "造假",
        "伪造",
        "欺诈",
        "诈骗",
        "骗",
        "虚假",
        "作弊",
        "说谎",
        "撒谎",
        "嫌疑",
        "可疑",
        "违法",
        "犯罪",
        "篡改",
        "假",
    ),
)


def verdict(outcome: str = "real", *codes: str, side: int = 800) -> Verdict:
    return Verdict(
        outcome=outcome,  # type: ignore[arg-type]
        score=1.5,
        probability=0.5,
        heatmap=np.zeros((2, 2), np.float32),
        cell=16,
        regions=(),
        reasons=tuple(Reason(code, f"Sentence of {code}.") for code in codes),
        photo_sha256="0" * 64,
        graph_sha256="1" * 64,
        model_version="test",
        width=side,
        height=side,
        quality=PhotoQuality(side, 0.4, 90.0, 0.1),
        hot_share=0.0,
    )


def provenance(declared: str = "none", thumbnail: str = "none") -> Provenance:
    finding = Finding("iptc", declared, "XMP", {}, "It is labelled.")  # type: ignore[arg-type]
    camera = CameraFacts(thumbnail=thumbnail)  # type: ignore[arg-type]
    return Provenance(declared, (finding,), camera, (), "0" * 64)  # type: ignore[arg-type]


def comparison(
    outcome: str, changed: float = 0.0, *, overlap: float = 0.9, agreement: float = 0.99
) -> Comparison:
    changes = (Change((0, 0, 9, 9), 0.4),) if changed else ()
    facts = (
        50,
        60,
        overlap,
        agreement,
        changed,
        changes,
        None,
        None,
        (),
        "0" * 64,
        "2" * 64,
        800,
        800,
    )
    return Comparison(outcome, *facts)  # type: ignore[arg-type]


def photo(**facts: Any) -> ClaimPhoto:
    plain = {
        "name": "a.jpg",
        "verdict": verdict(),
        "provenance": provenance(),
        "comparisons": (),
        "duplicates": (),
    }
    return ClaimPhoto(**{**plain, "error": "", "sha256": "0" * 64, **facts})


def seen(claim_id: str) -> tuple[Duplicate, ...]:
    return (Duplicate("a.jpg", "photo 1", claim_id, 3, False, "2026-01-01T00:00:00+00:00"),)


BROKEN = Reason.of(
    "c2pa_invalid",
    phrase("c2pa_note_unsigned"),
    phrase("c2pa_invalid", failures="assertion.dataHash"),
)
# Its product is the listing's, so that only the other photo of a claim is unlike it.
ALIKE = photo(name="b.jpg", comparisons=(("l.jpg", comparison("same_object")),))
FOUND = [
    ("declared_ai_generated", photo(provenance=provenance("ai_generated")), "escalate"),
    ("declared_ai_edited", photo(provenance=provenance("ai_edited")), "escalate"),
    ("declared_ai_possible", photo(provenance=provenance("ai_possible")), "review"),
    ("declared_ai_suspected", photo(provenance=provenance("ai_suspected")), "review"),
    ("credentials_broken", photo(provenance=replace(provenance(), notes=(BROKEN,))), "review"),
    ("preview_differs", photo(provenance=provenance(thumbnail="differs")), "review"),
    (
        "same_capture_changed",
        photo(comparisons=(("l.jpg", comparison("same_capture", 0.02)),)),
        "escalate",
    ),
    (
        "listing_photo_itself",
        photo(comparisons=(("l.jpg", comparison("same_capture")),)),
        "ask_photo",
    ),
    ("listing_unrelated", photo(comparisons=(("l.jpg", comparison("unrelated")),)), "approve"),
    ("reused_in_other_claim", photo(duplicates=seen("C-1")), "escalate"),
    ("repeated_in_claim", photo(duplicates=seen("")), "approve"),
    ("verdict_synthetic", photo(verdict=verdict("synthetic")), "review"),
    ("verdict_review", photo(verdict=verdict("review", "between_thresholds")), "review"),
    ("photo_unfit", photo(verdict=verdict("review", "too_blurred")), "ask_photo"),
    ("photo_unfit", photo(verdict=verdict("review", "too_soft")), "ask_photo"),
    (
        "whole_photo_processed",
        photo(verdict=verdict("review", "whole_photo_processed")),
        "ask_photo",
    ),
    ("photo_too_small", photo(verdict=verdict(side=200)), "ask_photo"),
    ("photo_unreadable", photo(verdict=None, provenance=None, error="a.jpg: cut off"), "ask_photo"),
]


@pytest.mark.parametrize(("rule", "found", "recommends"), FOUND, ids=[rule for rule, _, _ in FOUND])
def test_each_finding_has_its_rule(rule: str, found: ClaimPhoto, recommends: str) -> None:
    recommendation, reasons = decide([found, ALIKE], (), ClaimPolicy.default(), MODEL)
    assert recommendation == recommends
    assert reasons[0].code == rule
    assert reasons[0].sentence.startswith("a.jpg: ")
    assert [reason.code for reason in reasons].count(rule) == 1
    assert getattr(Rules(), rule) == recommends


@pytest.mark.parametrize(("rule", "found", "recommends"), FOUND, ids=[rule for rule, _, _ in FOUND])
@pytest.mark.parametrize("wanted", ["approve", "review"])
def test_each_rule_can_be_edited(
    rule: str, found: ClaimPhoto, recommends: str, wanted: Recommendation
) -> None:
    policy = replace(ClaimPolicy.default(), rules=replace(Rules(), **{rule: wanted}))
    assert decide([found, ALIKE], (), policy, MODEL)[0] == wanted


@pytest.mark.parametrize(
    "found", [found for _, found, _ in FOUND], ids=[rule for rule, _, _ in FOUND]
)
def test_each_reason_is_made_of_phrases(found: ClaimPhoto) -> None:
    for model in (MODEL, MODEL | {"guarantee": PROMISE}):
        _, reasons = decide(
            [found], [ListingPhoto("l.jpg", "", "l.jpg: cut off")], ESCALATES, model
        )
        assert all(
            reason.phrases and in_english(reason.phrases) == reason.sentence for reason in reasons
        )
    verbatim = {
        one.values["text"]
        for reason in reasons
        for one in reason.phrases
        if one.template == "verbatim"
    }
    told = {reason.sentence for reason in (found.verdict.reasons if found.verdict else ())}
    assert verbatim <= {"It is labelled.", "cut off", "l.jpg: cut off", *told}


def test_nothing_found_approves_and_says_what_the_model_promises() -> None:
    recommendation, reasons = decide([photo()], (), ClaimPolicy.default(), MODEL)
    assert (recommendation, [reason.code for reason in reasons]) == ("approve", ["no_promise"])


def test_the_weightiest_counts_and_comes_first() -> None:
    photos = [found for _, found, _ in FOUND]
    recommendation, reasons = decide(photos, (), ClaimPolicy.default(), MODEL)
    assert recommendation == "escalate"
    order = {"escalate": 3, "review": 2, "ask_photo": 1, "approve": 0}
    weights = [order[getattr(Rules(), reason.code)] for reason in reasons[:-1]]
    assert weights == sorted(weights, reverse=True)


UNLIKE = photo(comparisons=(("l.jpg", comparison("unrelated")), ("m.jpg", comparison("unrelated"))))


def test_a_claim_without_a_photo_like_the_listing_asks_for_one() -> None:
    recommendation, reasons = decide([UNLIKE, UNLIKE], (), ClaimPolicy.default(), MODEL)
    assert (recommendation, reasons[0].code) == ("ask_photo", "no_photo_matches_listing")
    assert [reason.code for reason in reasons].count("no_photo_matches_listing") == 1
    assert "close-ups" in reasons[0].sentence


@pytest.mark.parametrize("outcome", ["same_object", "same_capture"])
def test_one_photo_like_the_listing_is_enough(outcome: str) -> None:
    found = photo(
        comparisons=(
            ("l.jpg", comparison("unrelated")),
            ("m.jpg", comparison(outcome, overlap=0.1)),
        )
    )
    recommendation, reasons = decide([UNLIKE, found], (), ClaimPolicy.default(), MODEL)
    assert recommendation == "approve"
    assert "no_photo_matches_listing" not in {reason.code for reason in reasons}
    assert (
        decide([photo()], (), ClaimPolicy.default(), MODEL)[0] == "approve"
    )  # no listing, nothing to match


def test_what_weighs_more_is_not_held_back_by_a_photo_that_lacks() -> None:
    found = replace(UNLIKE, provenance=provenance("ai_generated"))
    recommendation, reasons = decide([UNLIKE, found], (), ClaimPolicy.default(), MODEL)
    assert (recommendation, reasons[0].code) == ("escalate", "declared_ai_generated")


@pytest.mark.parametrize(
    ("photos", "whole_item"),
    [
        ([UNLIKE], True),
        ([UNLIKE, photo(error="a.jpg: cut off")], False),
        ([UNLIKE, photo(duplicates=seen("C-1"))], False),
    ],
)
def test_the_buyer_is_asked_for_the_whole_item_where_nothing_else_lacks(
    photos: list[ClaimPhoto], whole_item: bool
) -> None:
    recommendation, reasons = decide(photos, (), ClaimPolicy.default(), MODEL)
    claim = Claim(
        "C", "", "", tuple(photos), (), recommendation, reasons, ClaimPolicy.default(), MODEL, {}
    )
    asked = message_to_buyer("ask_photo", whole_item=True)
    assert (claim.message_to_buyer == asked) == whole_item
    assert claim.to_dict()["message_to_buyer"] == claim.message_to_buyer
    assert ("whole item" in asked["en"], "商品整体" in asked["zh"]) == (True, True)


def test_too_few_photos_counts_those_that_can_be_read() -> None:
    policy = replace(
        ClaimPolicy.default(), photos=replace(ClaimPolicy.default().photos, at_least=2)
    )
    broken = photo(name="b.jpg", verdict=None, provenance=None, error="b.jpg: cut off")
    recommendation, reasons = decide([photo(), broken], (), policy, MODEL)
    assert recommendation == "ask_photo"
    assert "1 readable photo; the policy asks for 2." in {reason.sentence for reason in reasons}
    assert decide([photo(), photo()], (), policy, MODEL)[0] == "approve"


def test_a_listing_photo_that_cannot_be_read_is_a_note() -> None:
    recommendation, reasons = decide(
        [photo()], [ListingPhoto("l.jpg", "0" * 64, "l.jpg: cut off")], ClaimPolicy(), MODEL
    )
    assert (recommendation, reasons[0].code) == ("approve", "listing_unreadable")


ESCALATES = replace(ClaimPolicy.default(), rules=replace(Rules(), verdict_synthetic="escalate"))


@pytest.mark.parametrize(
    ("model", "photos", "limit", "expected"),
    [
        ({"demo": True}, 1, None, "review"),
        ({"calibrated": False}, 1, None, "review"),
        ({}, 1, None, "escalate"),
        ({}, 1, 0.1, "review"),  # no promise
        ({"guarantee": PROMISE}, 3, 0.1, "escalate"),  # 9%
        ({"guarantee": PROMISE}, 4, 0.1, "review"),  # 12%
        ({"guarantee": PROMISE | {"accused": None}}, 1, 0.1, "review"),
        ({"guarantee": PROMISE, "demo": True}, 1, 1.0, "review"),
    ],
)
def test_what_a_verdict_alone_may_do(
    model: dict[str, Any], photos: int, limit: float | None, expected: str
) -> None:
    policy = replace(ESCALATES, escalate_up_to=limit)
    given = [photo(verdict=verdict("synthetic")), *[photo()] * (photos - 1)]
    recommendation, reasons = decide(given, (), policy, MODEL | model)
    assert recommendation == expected
    assert ("not escalate" in reasons[0].sentence) == (expected == "review")


def test_a_demonstration_model_does_not_hold_back_what_the_file_says() -> None:
    found = photo(verdict=verdict("synthetic"), provenance=provenance("ai_generated"))
    assert decide([found], (), ClaimPolicy.default(), MODEL | {"demo": True})[0] == "escalate"


@pytest.mark.parametrize(("photos", "bound"), [(1, "3%"), (3, "9%"), (40, "100%")])
def test_the_bound_of_a_claim_is_photos_times_alpha(photos: int, bound: str) -> None:
    reason = decide([photo()] * photos, (), ClaimPolicy.default(), MODEL | {"guarantee": PROMISE})[
        1
    ][-1]
    assert reason.code == "false_alarm_bound"
    assert f"up to {bound} of honest claims" in reason.sentence
    assert f"({photos} × 3%)" in reason.sentence
    assert "95% confidence" in reason.sentence


@pytest.mark.parametrize(
    "found",
    [
        comparison("same_capture", 0.02, overlap=0.1),
        comparison("same_capture", 0.02, agreement=0.5),
        comparison("same_object", 0.02),
    ],
)
def test_comparisons_that_do_not_count(found: Comparison) -> None:
    assert (
        decide([photo(comparisons=(("l.jpg", found),))], (), ClaimPolicy.default(), MODEL)[0]
        == "approve"
    )


def test_a_change_below_the_policy_is_none() -> None:
    found = photo(comparisons=(("l.jpg", comparison("same_capture", 0.0001)),))
    assert decide([found], (), ClaimPolicy.default(), MODEL)[1][0].code == "listing_photo_itself"


def sentence_of(found: ClaimPhoto) -> str:
    return decide([found], (), ClaimPolicy.default(), MODEL)[1][0].sentence


def test_a_same_capture_claims_no_more_than_pixels_show() -> None:
    changed = sentence_of(photo(comparisons=(("l.jpg", comparison("same_capture", 0.02)),)))
    assert "or another by a camera that stood still in unchanged light" in changed
    assert "Which of the two photos was changed" in changed
    assert "1 area differs (2.0% of what they share)" in changed
    unchanged = sentence_of(photo(comparisons=(("l.jpg", comparison("same_capture")),)))
    assert unchanged.endswith("nothing differs by more than noise.")
    little = sentence_of(photo(comparisons=(("l.jpg", comparison("same_capture", 0.0001)),)))
    assert little.endswith("what differs (0.01%) is less than the policy counts.")
    same = replace(comparison("same_capture"), claim_sha256="2" * 64)
    assert sentence_of(photo(comparisons=(("l.jpg", same),))).endswith("byte for byte.")


def test_a_label_is_told_as_what_anybody_may_write_unless_a_trusted_signer_vouches() -> None:
    assert "Whoever had the file can have written this" in sentence_of(
        photo(provenance=provenance("ai_generated"))
    )
    signed = Finding(
        "c2pa", "ai_generated", "C2PA manifest", {"validation": "trusted"}, "It is signed."
    )
    found = replace(provenance("ai_generated"), findings=(signed,))
    assert (
        sentence_of(photo(provenance=found))
        == "a.jpg: the file says that it was generated by AI. It is signed."
    )


def test_the_listing_photo_in_several_claims_is_no_reuse() -> None:
    # Many buyers send the picture of what they ordered; painted on, it is another matter.
    sent = photo(comparisons=(("l.jpg", comparison("same_capture")),), duplicates=seen("C-1"))
    recommendation, reasons = decide([sent], (), ClaimPolicy.default(), MODEL)
    assert (recommendation, reasons[0].code) == ("ask_photo", "listing_photo_itself")
    painted = photo(
        comparisons=(("l.jpg", comparison("same_capture", 0.02)),), duplicates=seen("C-1")
    )
    codes = [reason.code for reason in decide([painted], (), ClaimPolicy.default(), MODEL)[1]]
    assert codes[:2] == ["same_capture_changed", "reused_in_other_claim"]


def test_a_listing_photo_as_it_stands_is_not_held_against_its_variant_with_a_logo() -> None:
    compared = (
        ("clean.jpg", comparison("same_capture")),
        ("logo.jpg", comparison("same_capture", 0.05)),
    )
    recommendation, reasons = decide(
        [photo(comparisons=compared)], (), ClaimPolicy.default(), MODEL
    )
    assert recommendation == "ask_photo"
    assert [reason.code for reason in reasons] == ["listing_photo_itself", "no_promise"]
    assert "clean.jpg" in reasons[0].sentence
    both = (("clean.jpg", comparison("same_capture", 0.02)), compared[1])
    codes = [
        reason.code
        for reason in decide([photo(comparisons=both)], (), ClaimPolicy.default(), MODEL)[1]
    ]
    assert codes == ["same_capture_changed", "same_capture_changed", "no_promise"]


def test_a_picture_that_looks_the_same_is_not_called_the_same() -> None:
    assert "looks the same as photo 1 of claim C-1" in sentence_of(photo(duplicates=seen("C-1")))
    exact = replace(seen("C-1")[0], exact=True, distance=0)
    assert "the same file as photo 1 of claim C-1" in sentence_of(photo(duplicates=(exact,)))


def test_what_a_reason_recommended_can_be_asked_again() -> None:
    photos = [photo(verdict=verdict("synthetic")), photo()]
    assert (
        recommended_by("verdict_synthetic", photos, ESCALATES, MODEL | {"demo": True}) == "review"
    )
    assert (
        recommended_by("verdict_synthetic", photos, replace(ESCALATES, escalate_up_to=None), MODEL)
        == "escalate"
    )
    assert recommended_by("preview_differs", photos, ESCALATES, MODEL) == "review"
    assert recommended_by("no_promise", photos, ESCALATES, MODEL) == "approve"


def test_a_photo_seen_often_in_one_claim_is_told_once() -> None:
    found = photo(duplicates=(*seen("C-1"), *seen("C-1"), *seen("C-2")))
    codes = [reason.code for reason in decide([found], (), ClaimPolicy.default(), MODEL)[1]]
    assert codes.count("reused_in_other_claim") == 2


@pytest.mark.parametrize("whole_item", [False, True])
@pytest.mark.parametrize("recommendation", get_args(Recommendation))
def test_the_text_for_the_buyer_accuses_nobody(
    recommendation: Recommendation, whole_item: bool
) -> None:
    message = message_to_buyer(recommendation, whole_item=whole_item)
    assert set(message) == {"en", "zh"}
    words = set(message["en"].lower().replace(",", " ").replace(".", " ").split())
    assert words.isdisjoint(ACCUSING)
    assert not [word for word in ACCUSING if not word.isascii() and word in message["zh"]]
    assert not [
        word
        for word in ("AI", "synthetic", "genuine", "合成", "真实")
        if word in message["en"] + message["zh"]
    ]
    assert message["en"].startswith("Thank you")
    assert message["zh"].startswith("感谢")


def test_no_reason_accuses_anybody() -> None:
    photos = [found for _, found, _ in FOUND]
    _, reasons = decide(
        photos,
        [ListingPhoto("l.jpg", "", "l.jpg: cut off")],
        ESCALATES,
        MODEL | {"guarantee": PROMISE},
    )
    text = " ".join(reason.sentence for reason in reasons).lower()
    assert len(reasons) > 15
    assert not [word for word in ACCUSING if f" {word}" in text]
    assert "buyer" not in text
