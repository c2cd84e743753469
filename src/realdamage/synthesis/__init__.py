"""Engines that make AI-synthesized damage, and the recipes that make sets of photos with them."""
