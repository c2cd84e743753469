"""The manifest: which photos there are, what they show, and how they are split. No torch."""
