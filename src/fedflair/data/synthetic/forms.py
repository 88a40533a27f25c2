"""What can be asked of the synthetic twin, by name; apart from what draws it, which takes a second to load."""

from typing import Literal

Format = Literal["packed", "huggingface", "apple", "all"]
ScaleName = Literal["mini", "full"]
