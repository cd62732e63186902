"""Characters that no text has (XML cannot hold them), which stand in for markup until the text is whole.

GAP is where something was removed that a reader would have seen: only beside it punctuation is repaired. NOTE is where a
footnote's mark stood: the punctuation beside it is the author's, only its spaces are closed. SEAM is where markup stood that
shows nothing, so that what it kept apart stays apart (two runs of apostrophes). KEEP n KEEP stands for text that
is to be shown as it is written, such as a nowiki's. BREAK ends a paragraph, which a line's end in the author's text does not.
"""

import re

GAP, NOTE, SEAM, KEEP, HEADING = "\x02", "\x06", "\x04", "\x05", "\x01"
BREAK = "\n\n"

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
