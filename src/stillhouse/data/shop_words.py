"""What the built-in shop's items are called: titles, texts and categories that tell what an item is.

A title names the series and the part, a text the maker and the topic, so that
a model that reads has something to learn from.
"""

from __future__ import annotations

import pyarrow as pa

from stillhouse.data.rows import ITEM_SCHEMA
from stillhouse.data.shop_catalogue import MAKERS, Catalogue

__all__ = ["item_id", "item_table"]

_DEPARTMENTS = {
    "Books": ("mysteries", "travel", "gardens", "astronomy", "cookery", "legends", "biographies", "sailing"),
    "Kitchen": ("bread", "coffee", "knives", "spices", "tea", "noodles", "preserves", "cheese"),
    "Garden": ("roses", "herbs", "tools", "ponds", "orchards", "bees", "greenhouses", "bulbs"),
    "Music": ("fiddles", "pianos", "drums", "choirs", "synthesisers", "records", "guitars", "flutes"),
    "Games": ("strategy", "puzzles", "cards", "trains", "castles", "racing", "detectives", "words"),
    "Outdoors": ("climbing", "canoes", "tents", "maps", "birds", "skiing", "fishing", "caves"),
    "Craft": ("wool", "leather", "pottery", "glass", "paper", "dyes", "looms", "wood"),
    "Science": ("magnets", "crystals", "microscopes", "rockets", "weather", "fossils", "radio", "clocks"),
    "Home": ("lamps", "rugs", "chairs", "candles", "mirrors", "shelves", "blankets", "vases"),
    "Sport": ("running", "archery", "rowing", "tennis", "cycling", "fencing", "swimming", "skating"),
}
_LINES = ("Everyday", "Northern", "Pocket", "Grand", "Old")
# fmt: off
_FIRST = (
    "Amber", "Blue", "Cedar", "Dusty", "Early", "Far", "Golden", "Hidden", "Iron", "Jolly", "Keen", "Long", "Misty",
    "Noble", "Open", "Patient", "Quiet", "Red", "Silver", "Tall", "Upland", "Violet", "Wild", "Young",
)
_SECOND = (
    "Anchor", "Bridge", "Comet", "Door", "Ember", "Field", "Gate", "Harbour", "Island", "Journey", "Key", "Lantern",
    "Meadow", "Needle", "Orchard", "Path", "Quarry", "River", "Summit", "Tower", "Valley", "Window", "Yard",
)
# fmt: on
_MAKERS = ("Aldous & Daughters", "Brandt", "Corvino", "Delacroix", "Eriksen", "Fenwick Brothers", "Galloway")


def item_id(item: int) -> str:
    """Return the id of the ``item``-th item ever put on sale.

    >>> item_id(41)
    'i00041'
    """
    return f"i{item:05d}"


def item_table(catalogue: Catalogue) -> pa.Table:
    """Return every item on sale with title, text and category, as a snapshot holds them."""
    topics = [_topic(number) for number in range(len(catalogue.related))]
    parts = zip(
        catalogue.topic.tolist(),
        catalogue.series.tolist(),
        catalogue.part.tolist(),
        catalogue.maker.tolist(),
        strict=True,
    )
    ids, titles, texts, categories = [], [], [], []
    for number, (topic, series, part, maker) in enumerate(parts):
        department, subject = topics[topic]
        name = _series(series)
        ids.append(item_id(number))
        titles.append(f"{name}, part {part}")
        texts.append(f"Part {part} of {name}, on {subject.lower()}. Made by {_maker(maker)} for {department.lower()}.")
        categories.append(f"{department}|{subject}")
    return pa.table([ids, titles, texts, categories], schema=ITEM_SCHEMA)


def _topic(number: int) -> tuple[str, str]:
    departments = list(_DEPARTMENTS)
    department = departments[number % len(departments)]
    turn, place = divmod(number // len(departments), 8)
    subject = _DEPARTMENTS[department][place]
    return department, (f"{_LINES[(turn - 1) % len(_LINES)]} {subject}" if turn else subject).capitalize()


def _series(number: int) -> str:
    turn, rest = divmod(number, len(_FIRST) * len(_SECOND))
    # 7 shares no factor with the number of names: each comes up once a turn.
    first, second = divmod(rest * 7 % (len(_FIRST) * len(_SECOND)), len(_SECOND))
    return f"{_FIRST[first]} {_SECOND[second]}" + (f" {turn + 1}" if turn else "")


def _maker(number: int) -> str:
    topic, which = divmod(number, MAKERS)
    return _MAKERS[(topic * MAKERS + which) % len(_MAKERS)]
