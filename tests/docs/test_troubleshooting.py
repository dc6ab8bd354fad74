"""The page on troubleshooting: the sections to which `quantizers.diagnose` links, and a table of them."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
SECTIONS = [
    "Dead codes",
    "Growing commitment",
    "NaN",
    "Loss at zero",
    "Usage differs on held-out data",
    "Ranks that drift",
    "Indices differ in bf16",
    "Spread and offset",
    "Large quantization error",
    "Saturated channels",
    "Constant bits",
    "Stages that add nothing",
    "Gradients that vanish",
    "Too few vectors",
]


def test_there_is_a_section_for_each_symptom_and_a_row_that_leads_to_it() -> None:
    assert re.findall(r"^## (.*)$", TEXT, re.M) == SECTIONS
    linked = re.findall(r"^\| .* \| \[(.*)\]\(#(.*)\) \|$", TEXT, re.M)
    assert linked == [(section, section.lower().replace(" ", "-")) for section in SECTIONS]


def test_each_section_has_a_block_of_code() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        assert section.count("```python") == 1, section.splitlines()[0]
