"""Which calls change the world: `cm2.writes`, under the name that labelling has always had for it."""

from cm2.writes import Mode, changes_state, mode, verb_kind, words

__all__ = ["Mode", "changes_state", "mode", "verb_kind", "words"]
