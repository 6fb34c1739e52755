"""The zones: every entry says what it means, and no word means two."""

from collections import Counter

import pytest

from taxonomy.words import phrase_key
from taxonomy.zones import load_zones, zones_digest

ZONES = load_zones()


def test_no_word_names_two_zones():
    words = Counter(phrase_key(w) for zone in ZONES.values() for w in (*zone.words, *zone.nouns))
    assert not [word for word, count in words.items() if count > 1]


@pytest.mark.parametrize("name", ZONES)
def test_a_zone_is_a_part_of_the_lung(name):
    zone = ZONES[name]
    assert set(zone.both_sides) <= set(zone.words)
    shares = [getattr(r, f) for r in zone.volume for f in ("height", "width", "depth", "radius")]
    if zone.film:
        shares += [zone.film.height, zone.film.width]
        assert zone.film.height or zone.film.width
    for low, high in filter(None, shares):
        assert 0 <= low < high
    assert all(region.model_dump(exclude_none=True) for region in zone.volume)


def test_each_reader_depends_on_its_own_part_only():
    assert len({zones_digest(part) for part in ("words", "film", "volume")}) == 3
