"""Engines that make photos of real and of AI-synthesized damage, and the recipe runner that writes them."""
