"""Ablation: variants of a recipe, made and measured alike on the tuning sets."""
