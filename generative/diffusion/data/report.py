"""What was found in a folder of images, and what was done about it: one rule for each finding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

EXAMPLES = 3  # names kept of each finding

FINDINGS = {
    # left out
    "missing": "named in metadata.jsonl, but not there: left out",
    "unreadable": "no image that can be opened: left out",
    "damaged": "begins as an image, but its pixels are cut short or corrupt: left out",
    "huge": "more than 64 million pixels: left out, without decoding it",
    "tiny": "would have to be enlarged more than four times: left out",
    "unknown range": "numbers with no stated range (32 bits, floats): left out",
    "bad line": 'a line of metadata.jsonl that is no object with a "file_name": left out',
    "outside": "a file_name that leads out of the folder: left out",
    "repeated": "named again in metadata.jsonl: its first line counts",
    "no caption": 'without "text" where others have it: left out',
    "no label": 'without "label" where others have it: left out',
    "unlisted": "an image that metadata.jsonl does not name: left out",
    "other": "neither an image nor metadata.jsonl: left out",
    # kept
    "grey": "grey: of three equal channels where others have colour",
    "transparent": "with transparency: laid over the background",
    "palette": "indexed colours: looked up",
    "colour space": "CMYK or another colour space: turned into RGB",
    "deep": "16 bits a channel: rounded to 8",
    "turned": "turned or mirrored by its EXIF orientation: set upright",
    "animated": "more than one frame: the first is taken",
    "cropped": "not square: its middle is taken",
    "reduced": "larger than asked: reduced (Lanczos, antialiased)",
    "enlarged": "smaller than asked: enlarged (bicubic)",
    "identical": "the same pixels as an earlier image: kept, on the same side of train and test",
}


@dataclass
class Report:
    """Counts by finding (the keys of `FINDINGS`), and the first few names of each.

    Attributes:
        kept: images that are in the data set.
        counts: how many files or lines have each finding; a file may have several.
        examples: at most three names for each finding.
    """

    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, finding: str, name: str) -> None:
        """Note one. Raises KeyError for a finding without a rule."""
        if finding not in FINDINGS:
            raise KeyError(finding)
        self.counts[finding] += 1
        shown = self.examples.setdefault(finding, [])
        if len(shown) < EXAMPLES:
            shown.append(_safe(name))

    def lines(self) -> list[str]:
        """One line for each finding, in the order of `FINDINGS`, after one for what was kept."""
        made = [f"{self.kept:,} image{'s' if self.kept != 1 else ''} kept"]
        for finding, rule in FINDINGS.items():
            if count := self.counts[finding]:
                names = ", ".join(self.examples[finding]) + (", ..." if count > EXAMPLES else "")
                made.append(f"{count:,} {finding}: {rule} ({names})")
        return made


def _safe(name: str) -> str:
    """The name as it can be printed in one line: what is no printable character is written as its number."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return plain if len(plain) <= 60 else plain[:57] + "..."
