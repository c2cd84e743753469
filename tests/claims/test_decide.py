"""From findings to a recommendation: each rule by itself, which of several counts, and what may
never escalate."""

from dataclasses import replace

import pytest

from realdamage.claims.decide import Claim, ClaimPhoto, Duplicate, ListingPhoto, decide
from realdamage.claims.policy import RECOMMENDATIONS, ClaimPolicy, Rules, message_to_buyer
from realdamage.core.quality import PhotoQuality
from realdamage.core.verdict import Reason, Verdict
from realdamage.photo_pairs import Change, Comparison
from realdamage.phrases import phrase
from realdamage.provenance import CameraFacts, Finding, Provenance

MODEL = {"demo": False, "calibrated": True, "guarantee": None}
PROMISE = {"delta": 0.05, "accused": {"share": 0.03, "photos": 110}, "statement": "…"}
# What neither a reason nor a text for the buyer may say.
ACCUSING = (
    *("fake", "fraud", "forge", "forgery", "lie", "liar", "lying", "cheat", "scam", "deceive"),
    *("dishonest", "suspicious", "manipulated", "tamper", "accuse", "guilty", "crime"),
    *("counterfeit", "fabricate"),
)


def verdict(outcome="real", *codes, side=800):
    return Verdict(
        outcome=outcome,
        score=1.5,
        probability=0.5,
        heatmap=None,
        cell=16,
        regions=(),
        reasons=tuple(Reason(code, f"Sentence of {code}.") for code in codes),
        photo_sha256="0" * 64,
        graph_sha256="1" * 64,
        model_version="test",
        width=side,
        height=side,
        quality=PhotoQuality(side, 90.0, 0.1),
        hot_share=0.0,
    )


def provenance(declared="none", thumbnail="none"):
    finding = Finding("iptc", declared, "XMP", {}, "It is labelled.")
    camera = CameraFacts(thumbnail=thumbnail)
    return Provenance(declared, (finding,), camera, (), "0" * 64)


def comparison(outcome, changed=0.0, *, overlap=0.9, agreement=0.99):
    return Comparison(
        outcome,
        overlap=overlap,
        agreement=agreement,
        changed=changed,
        changes=(Change((0, 0, 9, 9), 0.4),) if changed else (),
        claim_sha256="0" * 64,
        listing_sha256="2" * 64,
    )


def photo(**facts):
    plain = {"name": "a.jpg", "verdict": verdict(), "provenance": provenance(), "error": ""}
    plain |= {"comparisons": (), "duplicates": (), "sha256": "0" * 64}
    return ClaimPhoto(**plain | facts)


def compared(*found, **facts):
    """A photo compared with the listing photos l1.jpg, l2.jpg, …"""
    named = tuple((f"l{number}.jpg", one) for number, one in enumerate(found, start=1))
    return photo(comparisons=named, **facts)


def decided(*photos, **model):
    """The recommendation and the codes of the reasons, by the default policy."""
    recommendation, reasons = decide(photos, (), ClaimPolicy(), MODEL | model)
    return recommendation, [reason.code for reason in reasons]


def seen(claim_id):
    return (Duplicate("a.jpg", "photo 1", claim_id, 3, False, "2026-01-01T00:00:00+00:00"),)


BROKEN = Reason.of("c2pa_invalid", phrase("c2pa_note_unsigned"), phrase("c2pa_unbound"))
WHOLE = verdict("review", "whole_photo_processed")
SAME, EDITED = comparison("same_capture"), comparison("same_capture", 0.02)
UNLIKE = compared(comparison("unrelated"), comparison("unrelated"))
# It resembles the listing photo, so that only the other photo of a claim does not.
ALIKE = compared(comparison("same_object"), name="b.jpg")
FOUND = [
    ("declared_ai_generated", photo(provenance=provenance("ai_generated")), "escalate"),
    ("declared_ai_edited", photo(provenance=provenance("ai_edited")), "escalate"),
    ("declared_ai_possible", photo(provenance=provenance("ai_possible")), "review"),
    ("declared_ai_suspected", photo(provenance=provenance("ai_suspected")), "review"),
    ("credentials_broken", photo(provenance=replace(provenance(), notes=(BROKEN,))), "review"),
    ("preview_differs", photo(provenance=provenance(thumbnail="differs")), "review"),
    ("same_capture_changed", compared(EDITED), "escalate"),
    ("listing_photo_itself", compared(SAME), "ask_photo"),
    ("listing_photo_itself", compared(comparison("same_capture", 0.0001)), "ask_photo"),
    ("listing_unrelated", compared(comparison("unrelated")), "approve"),
    ("reused_in_other_claim", photo(duplicates=seen("C-1")), "escalate"),
    ("repeated_in_claim", photo(duplicates=seen("")), "approve"),
    ("verdict_synthetic", photo(verdict=verdict("synthetic")), "review"),
    ("verdict_review", photo(verdict=verdict("review", "between_thresholds")), "review"),
    ("photo_unfit", photo(verdict=verdict("review", "too_soft")), "ask_photo"),
    ("whole_photo_processed", photo(verdict=WHOLE), "ask_photo"),
    ("photo_too_small", photo(verdict=verdict(side=200)), "ask_photo"),
    ("photo_unreadable", photo(verdict=None, provenance=None, error="a.jpg: cut off"), "ask_photo"),
]
CUT_OFF = ListingPhoto("l.jpg", "0" * 64, "l.jpg: cut off")


@pytest.mark.parametrize(("rule", "found", "recommends"), FOUND, ids=[rule for rule, _, _ in FOUND])
def test_each_finding_has_its_rule_which_can_be_edited(rule, found, recommends):
    recommendation, reasons = decide([found, ALIKE], (), ClaimPolicy(), MODEL)
    assert (recommendation, reasons[0].code) == (recommends, rule)
    assert reasons[0].sentence.startswith("a.jpg: ")
    assert [reason.code for reason in reasons].count(rule) == 1
    for wanted in ("approve", "review"):
        policy = ClaimPolicy(rules=replace(Rules(), **{rule: wanted}))
        assert decide([found, ALIKE], (), policy, MODEL)[0] == wanted


def test_reasons_are_ordered_and_no_text_accuses_anybody():
    photos = [found for _, found, _ in FOUND]
    model = MODEL | {"guarantee": PROMISE}
    recommendation, reasons = decide(photos, [CUT_OFF], ClaimPolicy(), model)
    assert recommendation == "escalate"
    rules = [getattr(Rules(), reason.code, "approve") for reason in reasons[:-1]]
    weights = [RECOMMENDATIONS.index(rule) for rule in rules]
    assert weights == sorted(weights, reverse=True)
    text = " ".join(reason.sentence for reason in reasons).lower()
    assert [word for word in (*ACCUSING, "buyer") if f" {word}" in text] == []
    for one in RECOMMENDATIONS:
        for whole_item in (False, True):
            message = message_to_buyer(one, whole_item=whole_item)
            words = set(message["en"].lower().replace(",", " ").replace(".", " ").split())
            assert words.isdisjoint((*ACCUSING, "ai", "synthetic", "genuine"))
            assert not any(word in message["zh"] for word in ("合成", "真实"))


@pytest.mark.parametrize(
    ("photos", "recommendation", "codes"),
    [
        ([photo()], "approve", []),
        ([UNLIKE, UNLIKE], "ask_photo", ["no_photo_matches_listing", *["listing_unrelated"] * 2]),
        ([UNLIKE, ALIKE], "approve", ["listing_unrelated"]),
        ([compared(comparison("same_capture", 0.02, overlap=0.1))], "approve", []),
        ([compared(comparison("same_capture", 0.02, agreement=0.5))], "approve", []),
        # Many buyers send the picture of what they ordered; painted on, it is another matter.
        ([compared(SAME, duplicates=seen("C-1"))], "ask_photo", ["listing_photo_itself"]),
        (
            [compared(EDITED, duplicates=(*seen("C-1"), *seen("C-1"), *seen("C-2")))],
            "escalate",
            ["same_capture_changed", *["reused_in_other_claim"] * 2],
        ),
        # Shops show a picture with and without their logo.
        ([compared(SAME, EDITED)], "ask_photo", ["listing_photo_itself"]),
    ],
)
def test_findings_together(photos, recommendation, codes):
    assert decided(*photos) == (recommendation, [*codes, "no_promise"])


def test_too_few_photos_counts_readable_ones_and_listing_errors_are_notes():
    policy = ClaimPolicy(photos=replace(ClaimPolicy().photos, at_least=2))
    broken = photo(name="b.jpg", verdict=None, provenance=None, error="b.jpg: cut off")
    recommendation, reasons = decide([photo(), broken], [CUT_OFF], policy, MODEL)
    codes = ["photo_unreadable", "too_few_photos", "listing_unreadable", "no_promise"]
    assert (recommendation, [reason.code for reason in reasons]) == ("ask_photo", codes)
    assert decide([photo(), photo()], [CUT_OFF], policy, MODEL)[0] == "approve"


def test_the_buyer_is_asked_for_the_whole_item_if_nothing_else_is_missing():
    policy, asked = ClaimPolicy(), message_to_buyer("ask_photo", whole_item=True)
    assert "whole item" in asked["en"]
    assert "商品整体" in asked["zh"]
    for more, whole_item in (
        ((), True),
        ((photo(error="a.jpg: cut off"),), False),
        ((photo(duplicates=seen("C-1")),), False),
    ):
        photos = (UNLIKE, *more)
        recommendation, reasons = decide(photos, (), policy, MODEL)
        claim = Claim("C", "", "", photos, (), recommendation, reasons, policy, MODEL, {})
        assert (claim.message_to_buyer == asked) == whole_item


@pytest.mark.parametrize(
    ("model", "photos", "limit", "expected"),
    [
        ({"demo": True}, 1, None, "review"),
        ({"calibrated": False}, 1, None, "review"),
        ({}, 1, None, "escalate"),
        ({}, 1, 0.1, "review"),  # no guarantee
        ({"guarantee": PROMISE}, 3, 0.1, "escalate"),  # 9%
        ({"guarantee": PROMISE}, 4, 0.1, "review"),  # 12%
        ({"guarantee": PROMISE, "demo": True}, 1, 1.0, "review"),
    ],
)
def test_what_a_verdict_alone_may_do(model, photos, limit, expected):
    rules = replace(Rules(), verdict_synthetic="escalate")
    policy = ClaimPolicy(rules=rules, escalate_up_to=limit)
    given = [photo(verdict=verdict("synthetic")), *[photo()] * (photos - 1)]
    recommendation, reasons = decide(given, (), policy, MODEL | model)
    assert recommendation == expected
    held = any(one.template.startswith("held_") for one in reasons[0].phrases)
    assert held == (expected == "review")
    declared = photo(verdict=verdict("synthetic"), provenance=provenance("ai_generated"))
    assert decided(declared, **model)[0] == "escalate"


def test_the_bound_of_a_claim_is_photos_times_alpha():
    model = MODEL | {"guarantee": PROMISE}
    for photos, bound in ((3, "9%"), (40, "100%")):
        reason = decide([photo()] * photos, (), ClaimPolicy(), model)[1][-1]
        assert reason.code == "false_alarm_bound"
        values = {name: value for one in reason.phrases for name, value in one.values.items()}
        expected = {"photos": str(photos), "bound": bound, "share": "3%", "confidence": "95%"}
        assert expected.items() <= values.items()
