"""Keeps diffusers and transformers from announcing at every layer that their Flax classes will go.

Imported before them; the requirements pin the last versions that have these classes. What the
environment says goes first.
"""

import os

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
