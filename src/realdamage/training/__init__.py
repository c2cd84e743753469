"""Fine-tunes a timm ViT with an evidence head; the only room, beside the codec engines, that
imports torch."""
