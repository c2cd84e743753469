"""Figures as text, Markdown and HTML."""
