"""docs/presets.md says what the data says."""

from quantizers import presets
from tests.presets.page import PAGE, SECTIONS, made, split


def test_the_page_is_made_from_the_data() -> None:
    _, inside, _ = split(PAGE.read_text())
    assert inside == made(), 'run `python -c "from tests.presets.page import write; write()"` in the repository'


def test_every_preset_is_on_the_page_once() -> None:
    listed = [preset.name for module in SECTIONS.values() for preset in module.PRESETS]
    assert sorted(listed) == list(presets.available())
