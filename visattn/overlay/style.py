"""Default style of figures."""

COLOUR_MAP = "inferno"
"""Its lightness rises evenly: no false edges, and it survives a grey printer and colour blindness."""
OPACITY = 0.85
"""Of the largest weight's colour."""
WORD_SIZE = 11.0
"""Of a sheet's words, in points."""
