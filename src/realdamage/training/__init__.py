"""Fine-tunes a timm ViT with an evidence head."""
