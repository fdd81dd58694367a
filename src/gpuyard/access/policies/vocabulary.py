"""The actions and condition keys that a policy may name: rows of `vocabulary.json`, whose source it states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gpuyard.access.policies.patterns import compile_text

MANY = "s"  # a type that ends so has many values: strings, arns


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`keys` are those that the services define, `filled` those that this yard gives to every request they concern,
    each with its type. A key that ends in `/${...}` stands for one with any name there."""

    actions: Mapping[str, Sequence[str]]
    keys: Mapping[str, str]
    filled: Mapping[str, str]
    source: str

    def type_of(self, key: str) -> str | None:
        """The type of a key that this yard fills, in any case; None for every other."""
        return _by_name(self.filled, key)

    def defined(self, key: str) -> bool:
        """Whether some service has such a key, filled here or not."""
        return _by_name(self.keys, key) is not None or key.lower().startswith("aws:")

    def has_action(self, pattern: str) -> bool:
        """Whether the pattern names at least one action."""
        if pattern == "*":
            return True
        service, _, name = pattern.lower().partition(":")
        matches = compile_text(name, wildcards=True, with_variables=False)
        return any(matches(action.lower(), {}) for action in self.actions.get(service, ()))

    def nearest_action(self, pattern: str) -> str:
        """The action most like it, or nothing."""
        service, _, _ = pattern.partition(":")
        known = [f"{name}:{action}" for name in self.actions for action in self.actions[name]]
        mine = [action for action in known if action.startswith(f"{service.lower()}:")]
        return nearest(pattern, mine or known)

    def nearest_key(self, key: str) -> str:
        """The filled key most like it, or nothing."""
        return nearest(key, list(self.filled))


def _by_name(known: Mapping[str, str], key: str) -> str | None:
    low = key.lower()
    for name, kind in known.items():
        stem, variable, _ = name.lower().partition("${")
        if low == name.lower() or (variable and low.startswith(stem) and len(low) > len(stem)):
            return kind
    return None


def nearest(word: str, known: list[str]) -> str:
    """The one most like the word, or `--`."""
    from difflib import get_close_matches  # only for whoever has mistyped

    by_low = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), by_low, 1, 0.5)
    return by_low[found[0]] if found else "--"


@cache
def load() -> Vocabulary:
    """The vocabulary of this build."""
    value = json.loads(files("gpuyard.access.policies").joinpath("vocabulary.json").read_text("utf-8"))
    return Vocabulary(value["actions"], value["keys"], value["filled"], value["source"])
