"""Random edits of a taxonomy, of every kind that a team makes."""

import random
from collections.abc import Callable
from dataclasses import replace

from taxonomy.reading import Category
from taxonomy.targets import Target, Taxonomy
from taxonomy.words import phrase_key

WORDS = (
    "apical band calcified cardiac clear density enlarged fluid hilar hyperexpanded line nodule "
    "opacity patchy prominence rounded scar shadow silhouette streaky surgical thin tube"
).split()
"""Words of reports, so that a new phrase may well be found in some."""

Targets = dict[str, Target]


def edited(taxonomy: Taxonomy, rng: random.Random) -> tuple[str, Taxonomy]:
    """The taxonomy after one edit, and what was done."""
    edit = rng.choice(EDITS)
    targets = dict(taxonomy.targets)
    return f"{edit.__name__} {edit(targets, rng)}", Taxonomy(targets)


def add_synonym(targets: Targets, rng: random.Random) -> str:
    name = rng.choice(list(targets))
    phrase = _new_phrase(targets, rng)
    targets[name] = replace(targets[name], synonyms=(*targets[name].synonyms, phrase))
    return f"{phrase} to {name}"


def remove_synonym(targets: Targets, rng: random.Random) -> str:
    name = rng.choice([target.name for target in targets.values() if target.synonyms])
    phrase = rng.choice(targets[name].synonyms)
    left = tuple(other for other in targets[name].synonyms if other != phrase)
    targets[name] = replace(targets[name], synonyms=left)
    return f"{phrase} from {name}"


def add_target(targets: Targets, rng: random.Random) -> str:
    parent = rng.choice(list(targets.values()))
    name = _new_phrase(targets, rng)
    targets[name] = Target(name, parent.category, parent.group, parents=(parent.name,))
    return name


def remove_target(targets: Targets, rng: random.Random) -> str:
    name = rng.choice(list(targets))
    del targets[name]
    for other in [target for target in targets.values() if name in target.parents]:
        left = tuple(parent for parent in other.parents if parent != name)
        targets[other.name] = replace(other, parents=left)
    return name


def rename_target(targets: Targets, rng: random.Random) -> str:
    before = rng.choice(list(targets))
    name = _new_phrase(targets, rng)
    renamed = {}
    for target in targets.values():
        parents = tuple(name if parent == before else parent for parent in target.parents)
        moved = replace(target, parents=parents)
        if target.name == before:
            words = (*target.synonyms, before)
            moved = replace(moved, name=name, synonyms=words, replaces=(before,))
        renamed[moved.name] = moved
    targets.clear()
    targets.update(renamed)
    return f"{before} to {name}"


def merge_targets(targets: Targets, rng: random.Random) -> str:
    kept, gone = rng.sample(list(targets), 2)
    words = targets[gone].phrases
    remove = targets.pop(gone)
    for other in [target for target in targets.values() if gone in target.parents]:
        left = tuple(parent for parent in other.parents if parent != gone)
        targets[other.name] = replace(other, parents=left)
    target = targets[kept]
    targets[kept] = replace(
        target, synonyms=(*target.synonyms, *words), replaces=(*target.replaces, remove.name)
    )
    return f"{gone} into {kept}"


def change_category(targets: Targets, rng: random.Random) -> str:
    name = rng.choice(list(targets))
    other: Category = "anatomy" if targets[name].category == "abnormality" else "abnormality"
    targets[name] = replace(targets[name], category=other)
    return name


def change_parents(targets: Targets, rng: random.Random) -> str:
    name = rng.choice([target.name for target in targets.values() if target.parents])
    targets[name] = replace(targets[name], parents=())
    return name


def change_classes(targets: Targets, rng: random.Random) -> str:
    name = rng.choice(list(targets))
    targets[name] = replace(targets[name], sat="another class")
    return name


EDITS: tuple[Callable[[Targets, random.Random], str], ...] = (
    add_synonym,
    add_synonym,
    remove_synonym,
    add_target,
    remove_target,
    rename_target,
    rename_target,
    merge_targets,
    change_category,
    change_parents,
    change_classes,
)


def _new_phrase(targets: Targets, rng: random.Random) -> str:
    known = {phrase_key(phrase) for target in targets.values() for phrase in target.phrases}
    while True:
        phrase = " ".join(rng.sample(WORDS, rng.choice((1, 2, 2))))
        if phrase_key(phrase) not in known:
            return phrase
