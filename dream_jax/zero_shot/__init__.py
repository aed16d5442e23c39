"""Scores of photographs by CLIP, which has seen no image of the run: it knows classes by name."""
