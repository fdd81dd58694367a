"""The nouns of a yard and their state machines: frozen values, standard library only, no I/O."""
