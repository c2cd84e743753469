"""What a buyer may be told, in English and Chinese: polite, the same for everybody, and without any accusation.

A recommendation is about photos. Whoever decides knows more than the photos tell, so none of these texts says or hints
that the buyer did anything.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Recommendation: TypeAlias = Literal["approve", "ask_photo", "review", "escalate"]

_MESSAGES: dict[Recommendation, dict[str, str]] = {
    "approve": {
        "en": "Thank you for the photos. We have what we need and are going ahead with your request.",
        "zh": "感谢您提供的照片。资料已齐全，我们正在为您办理。",
    },
    "ask_photo": {
        "en": (
            "Thank you for getting in touch. So that we can help you, please send us another photo: the whole item and "
            "the damage close up, in good light, straight from your phone's camera at full size, not forwarded through "
            "a chat app and not edited."
        ),
        "zh": (
            "感谢您的联系。为了尽快帮您处理，请再补充照片：商品整体一张，破损处近照一张；请在光线充足处用手机相机直接拍摄，"
            "发送原图，不要经聊天软件转发，也不要编辑。"
        ),
    },
    "review": {
        "en": (
            "Thank you for the photos. A colleague is looking at your request and will get back to you. You do not "
            "have to do anything for now. If you like, you can add more photos of the item at any time."
        ),
        "zh": (
            "感谢您提供的照片。我们的同事正在查看您的申请，会尽快回复您。您暂时无需任何操作；"
            "如有需要，也可以随时补充商品照片。"
        ),
    },
    "escalate": {
        "en": (
            "Thank you for the photos. A colleague is looking at your request personally, which takes a little longer "
            "than usual. Please keep the item and its packaging until you hear from us. You can add more photos, or a "
            "short video of the item, at any time."
        ),
        "zh": (
            "感谢您提供的照片。您的申请将由专人处理，所需时间会比平时稍长。在收到我们的回复之前，请妥善保留商品及包装。"
            "您可以随时补充更多照片，或一段商品的短视频。"
        ),
    },
}


_WHOLE_ITEM = {
    "en": (
        "Thank you for the photos. So that we can help you, please send us one more: a photo of the whole item, in "
        "good light, straight from your phone's camera at full size. Your close-ups are useful too, there is no need "
        "to take them again."
    ),
    "zh": (
        "感谢您提供的照片。为了尽快帮您处理，请再补充一张商品整体的照片：在光线充足处用手机相机直接拍摄，发送原图即可。"
        "您已发来的近照同样有用，无需重拍。"
    ),
}


def message_to_buyer(recommendation: Recommendation, *, whole_item: bool = False) -> dict[str, str]:
    """The text for the buyer under "en" and "zh".

    whole_item: of `ask_photo`, ask for one photo of the whole item and nothing else.
    """
    return dict(
        _WHOLE_ITEM if whole_item and recommendation == "ask_photo" else _MESSAGES[recommendation]
    )
